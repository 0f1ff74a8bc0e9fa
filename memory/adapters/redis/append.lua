-- Append one run, where nothing else is wanted and nothing is out of the ordinary; else answer false, and write nothing:
-- commit.lua does it then, or refuses. Its closures and lists cost more than these few calls.
-- KEYS: receipt, conversation, positions. ARGV: at, beginning of the runs' keys, milliseconds a receipt is kept; the run's fields.
-- Answer: receipt.

local function count(text)  -- all that `tonumber` takes beside (nan, inf, 1e9) is out of the ordinary
  return text and string.find(text, '^%d+$') and tonumber(text) < 2 ^ 53 - 1 and tonumber(text)
end

local stored = redis.pcall('HMGET', KEYS[2],
  'version', 'incarnation', 'run_count', 'last_position', 'updated_at', 'expires_at')
local version, incarnation, run_count, last, updated_at =
  count(stored[1]), stored[2], count(stored[3]), count(stored[4]), count(stored[5])
if not (version and incarnation and run_count and last and updated_at) or stored[6]
    or redis.pcall('ZCARD', KEYS[3]) ~= run_count then
  return false
end
updated_at = updated_at > tonumber(ARGV[1]) and stored[5] or ARGV[1]  -- clocks differ: never back
last = string.format('%.0f', last + 1)
run_count = string.format('%.0f', run_count + 1)
local run = ARGV[2] .. last
if redis.call('EXISTS', KEYS[1], run) > 0 then
  return false
end
-- The first write is the one that can fail: where the memory is full, or the position is there already. The user's
-- rights could end later, so they are looked at before.
if not (redis.acl_check_cmd('HSET', run, 'id', '') and redis.acl_check_cmd('HSET', KEYS[2], 'run_count', '')
    and redis.acl_check_cmd('SET', KEYS[1], '', 'PX', ARGV[3])) then
  return false
end
if redis.pcall('ZADD', KEYS[3], 'NX', last, last) ~= 1 then
  return false
end
redis.call('HSET', run, 'id', ARGV[4], 'input', ARGV[5], 'output', ARGV[6], 'metadata', ARGV[7], 'created_at', ARGV[8])
redis.call('HSET', KEYS[2], 'run_count', run_count, 'last_position', last,
  'updated_at', updated_at, 'by_updated_at', updated_at)
local receipt = cjson.encode({{stored[1], incarnation, run_count, last}})
redis.call('SET', KEYS[1], receipt, 'PX', ARGV[3])
return receipt
