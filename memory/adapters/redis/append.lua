-- Append one run to a conversation that never expires. In any other case return false and write nothing: commit.lua then does the
-- work or refuses it. Its closures and lists cost more than these few calls.
-- KEYS: receipt, conversation, runs, order by updated_at.
-- ARGV: at, milliseconds a receipt is kept, conversation id, the run without its position. Answer: receipt.

local function count(text)  -- `tonumber` alone also reads nan, inf and 1e9
  return text and string.find(text, '^%d+$') and tonumber(text) < 2 ^ 53 - 1 and tonumber(text)
end

local stored = redis.pcall('HMGET', KEYS[2],
  'version', 'incarnation', 'run_count', 'last_position', 'updated_at', 'expires_at')
local version, incarnation, run_count, last, updated_at =
  count(stored[1]), stored[2], count(stored[3]), count(stored[4]), count(stored[5])
if not (version and incarnation and run_count and last and updated_at) or stored[6]
    or redis.pcall('ZCARD', KEYS[3]) ~= run_count or redis.pcall('ZCOUNT', KEYS[3], '(' .. stored[4], '+inf') ~= 0
    or type(redis.pcall('ZSCORE', KEYS[4], ARGV[3])) ~= 'string' or redis.call('EXISTS', KEYS[1]) == 1 then
  return false
end
updated_at = updated_at > tonumber(ARGV[1]) and stored[5] or ARGV[1]  -- clocks differ, and times never go back
last = string.format('%.0f', last + 1)
run_count = string.format('%.0f', run_count + 1)
-- Only the first write can fail, where memory is full. The rights to the others are checked before.
if not (redis.acl_check_cmd('HSET', KEYS[2], 'run_count', '') and redis.acl_check_cmd('ZADD', KEYS[4], 1, '')
    and redis.acl_check_cmd('SET', KEYS[1], '', 'PX', ARGV[2])) then
  return false
end
if redis.pcall('ZADD', KEYS[3], 'NX', last, last .. '\n' .. ARGV[4]) ~= 1 then
  return false
end
redis.call('HSET', KEYS[2], 'run_count', run_count, 'last_position', last, 'updated_at', updated_at)
redis.call('ZADD', KEYS[4], updated_at, ARGV[3])
local receipt = cjson.encode({{stored[1], incarnation, run_count, last}})
redis.call('SET', KEYS[1], receipt, 'PX', ARGV[2])
return receipt
