-- Remove expired conversations, up to a limit.
-- KEYS: namespaces, then the orders. ARGV: now, namespace, prefixes of the keys of conversations and of runs, the limit.
-- Reply: {number of conversations examined, number removed}.

local now, namespace, conversations, runs, most = unpack(ARGV)
local namespaces_key, orders = KEYS[1], {unpack(KEYS, 2)}
local ids, expiries = orders[1], orders[4]

return answered(function()
  check_orders(namespaces_key, orders)
  local found, removable = look('ZRANGE', expiries, '-inf', now, 'BYSCORE', 'LIMIT', 0, most), {}
  for _, id in ipairs(found) do
    local key, runs_key = conversations .. quoted(id), runs .. quoted(id)
    local expires_at = look('HGET', key, 'expires_at')
    local exists = look('EXISTS', key) == 1
    look('ZCARD', runs_key)
    must_be_allowed(key, 'UNLINK')
    must_be_allowed(runs_key, 'UNLINK')
    removable[id] = not exists or is_expired(key, expires_at, now)
    found[id] = expires_at
  end
  local removed = 0
  for _, id in ipairs(found) do
    if removable[id] then
      remove_conversation(conversations .. quoted(id), runs .. quoted(id), orders, id)
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
