-- Fast path: append one finished run. In all other cases the script writes nothing and returns false, and the client runs commit.lua,
-- whose closures and lists cost more than these few calls.
-- KEYS: receipt, conversation, runs, the orders by updated_at, last_run_at and expires_at.
-- ARGV: now, at, lifetime of a receipt in milliseconds, the run without its position, the conversation's id, and the key of the id if
-- it differs. Reply: the receipt.

local receipt_key, key, runs_key, by_updated_at, by_last_run_at, by_expires_at = unpack(KEYS)
local now, at, receipt_kept, run, id, key_of_id = unpack(ARGV)
local member, ran_at = key_of_id or id, string.match(run, '^[^\n]*')

local function count(text)  -- `tonumber` alone also reads nan, inf and 1e9
  return text and string.find(text, '^%d+$') and tonumber(text) < 2 ^ 53 - 1 and tonumber(text)
end

local stored = redis.pcall('HMGET', key, 'version', 'incarnation', 'run_count', 'last_position', 'updated_at', 'last_run_at',
  'expires_at', 'expires_after')
local run_count, last, updated_at, last_run_at = count(stored[3]), count(stored[4]), count(stored[5]), count(stored[6])
if not (count(stored[1]) and stored[2] and run_count and last and updated_at and last_run_at)
    or redis.pcall('ZCOUNT', runs_key, 1, last) ~= run_count
    or type(redis.pcall('ZSCORE', by_updated_at, member)) ~= 'string'
    or type(redis.pcall('ZSCORE', by_last_run_at, member)) ~= 'string'
    or not (redis.acl_check_cmd('ZADD', runs_key, 1, '') and redis.acl_check_cmd('HSET', key, 'run_count', '')
      and redis.acl_check_cmd('ZADD', by_updated_at, 1, '') and redis.acl_check_cmd('ZADD', by_last_run_at, 1, '')) then
  return false
end
local expires_at  -- the new one, if the append moves it
if stored[7] or stored[8] then
  local before, lifetime = count(stored[7] or '0'), count(stored[8] or '0')
  if not (before and lifetime) or stored[7] and before <= tonumber(now) or lifetime > 0 and (at + lifetime >= 2 ^ 53
      or type(redis.pcall('ZCARD', by_expires_at)) ~= 'number' or not redis.acl_check_cmd('ZADD', by_expires_at, 1, '')) then
    return false
  end
  expires_at = at + lifetime > before and lifetime > 0 and string.format('%.0f', at + lifetime)
end
run_count, last = string.format('%.0f', run_count + 1), string.format('%.0f', last + 1)
updated_at = updated_at > tonumber(at) and stored[5] or at  -- clocks differ, but updated_at never decreases
local written = table.concat({stored[1], cjson.encode(stored[2]), run_count, last}, ',')
local receipt = '{' .. cjson.encode(id) .. ':[' .. written .. ']}'
-- Only the first write can fail: if the receipt exists, memory is full, or the user lacks the permission.
local first = redis.pcall('SET', receipt_key, receipt, 'NX', 'PX', receipt_kept)
if not first or first.err then
  return false
end
redis.call('ZADD', runs_key, last, last .. '\n' .. run)
redis.call('ZADD', by_updated_at, updated_at, member)
local fields = {'run_count', run_count, 'last_position', last, 'updated_at', updated_at}
if tonumber(ran_at) > last_run_at then
  redis.call('ZADD', by_last_run_at, ran_at, member)
  fields[7], fields[8] = 'last_run_at', ran_at
end
if expires_at then
  redis.call('ZADD', by_expires_at, expires_at, member)
  fields[#fields + 1], fields[#fields + 2] = 'expires_at', expires_at
end
redis.call('HSET', key, unpack(fields))
return receipt
