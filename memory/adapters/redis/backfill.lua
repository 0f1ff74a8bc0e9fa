-- Give `last_run_at`, and a place in the order by it, to the conversations that an earlier release wrote, up to a limit: it becomes
-- the time of the last run. Runs again without effect.
-- KEYS: the orders by id and by last_run_at. ARGV: prefixes of the keys of conversations and of runs, the id to start after ('': the
-- beginning), the limit. Reply: {number of conversations examined, id of the last one ('': the end)}.

local conversations, runs, after, most = unpack(ARGV)
local by_id, by_last_run_at = unpack(KEYS)

return answered(function()
  local ids = look('ZRANGE', by_id, after == '' and '-' or '(' .. after, '+', 'BYLEX', 'LIMIT', 0, most)
  look('ZCARD', by_last_run_at)
  for _, id in ipairs(ids) do
    local key = conversations .. quoted(id)
    local last_run_at, created_at, updated_at = unpack(look('HMGET', key, 'last_run_at', 'created_at', 'updated_at'), 1, 3)
    if not last_run_at and created_at and updated_at then
      local last = look('ZRANGE', runs .. quoted(id), -1, -1)[1]
      last_run_at = last and string.match(last, '^%d+\n(%-?%d+)\n') or created_at
      if moment(key, last_run_at) < moment(key, created_at) then
        last_run_at = created_at
      end
      redis.call('HSET', key, 'last_run_at', last_run_at)
    end
    if last_run_at and moment(key, last_run_at) then
      redis.call('ZADD', by_last_run_at, last_run_at, id)
    end
  end
  return {#ids, #ids == tonumber(most) and ids[#ids] or ''}
end)
