-- Fast path: append one run to a conversation that never expires. In all other cases the script writes nothing and returns false,
-- and the client runs commit.lua, whose closures and lists cost more than these few calls.
-- KEYS: receipt, conversation, runs, order by updated_at.
-- ARGV: at, lifetime of a receipt in milliseconds, conversation id, the run without its position. Reply: the receipt.

local receipt_key, key, runs_key, order = unpack(KEYS)
local at, receipt_kept, id, run = unpack(ARGV)

local function count(text)  -- `tonumber` alone also reads nan, inf and 1e9
  return text and string.find(text, '^%d+$') and tonumber(text) < 2 ^ 53 - 1 and tonumber(text)
end

local stored = redis.pcall('HMGET', key, 'version', 'incarnation', 'run_count', 'last_position', 'updated_at', 'expires_at')
local run_count, last, updated_at = count(stored[3]), count(stored[4]), count(stored[5])
if not (count(stored[1]) and stored[2] and run_count and last and updated_at) or stored[6]
    or redis.pcall('ZCOUNT', runs_key, 1, last) ~= run_count or type(redis.pcall('ZSCORE', order, id)) ~= 'string'
    or not (redis.acl_check_cmd('ZADD', runs_key, 1, '') and redis.acl_check_cmd('HSET', key, 'run_count', '')
      and redis.acl_check_cmd('ZADD', order, 1, '')) then
  return false
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
redis.call('HSET', key, 'run_count', run_count, 'last_position', last, 'updated_at', updated_at)
redis.call('ZADD', order, updated_at, id)
return receipt
