-- Remove expired conversations, up to a limit.
-- KEYS: namespaces, then the orders, and the open runs. ARGV: now, namespace, prefixes of the keys of conversations and of runs, the limit.
-- Reply: {number of conversations examined, number removed}.

local now, namespace, conversations, runs, most = unpack(ARGV)
local namespaces_key, orders, open_runs = KEYS[1], {unpack(KEYS, 2, 6)}, KEYS[7]
local ids, expiries = orders[1], orders[5]

return answered(function()
  check_namespaces(namespaces_key)
  check_sorted_sets({open_runs, unpack(orders)}, 'ZADD', 'ZREM')
  local found, removable, open = look('ZRANGE', expiries, '-inf', now, 'BYSCORE', 'LIMIT', 0, most), {}, {}
  for _, id in ipairs(found) do
    local key, runs_key = conversations .. quoted(id), runs .. quoted(id)
    local expires_at, positions = unpack(look('HMGET', key, 'expires_at', 'open_runs'), 1, 2)
    local exists = look('EXISTS', key) == 1
    look('ZCARD', runs_key)
    must_be_allowed(key, 'UNLINK')
    must_be_allowed(runs_key, 'UNLINK')
    removable[id] = not exists or is_expired(key, expires_at, now)
    found[id], open[id] = expires_at, open_positions(key, positions)
  end
  local removed = 0
  for _, id in ipairs(found) do
    if removable[id] then
      remove_conversation(conversations .. quoted(id), runs .. quoted(id), orders, id, open_runs, open[id])
      removed = removed + 1
    elseif found[id] then  -- the hash is authoritative, and its expiry was edited
      redis.call('ZADD', expiries, found[id], id)
    else
      redis.call('ZREM', expiries, id)
    end
  end
  if redis.call('ZCARD', ids) == 0 then
    redis.call('SREM', namespaces_key, namespace)
  end
  return {#found, removed}
end)
