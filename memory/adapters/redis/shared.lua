-- Functions shared by the scripts. A script performs all checks before its first write, because Redis never rolls back.

local looked_at  -- the key of the last read: Redis's WRONGTYPE error does not name it

local function look(command, key, ...)
  looked_at = key
  return redis.call(command, key, ...)
end

-- Return the fields of a conversation's record, in the order of `ConversationRecord`.
local function read_record(key)
  return look('HMGET', key, 'id', 'metadata', 'version', 'incarnation', 'run_count', 'last_position', 'created_at',
    'updated_at', 'expires_at')
end

-- End the script with this reply; can be called in any function.
local function answer(...)
  error({answer = {...}})
end

local function answered(work)
  local done, result = pcall(work)
  if done then
    return result
  elseif type(result) == 'table' and result.answer then
    return result.answer
  end
  local message = type(result) == 'table' and result.err or tostring(result)
  if string.sub(message, 1, 9) == 'WRONGTYPE' then
    return {'corrupt', looked_at}
  end
  return redis.error_reply(message)  -- starts with the error's code; a rethrown error would start with a script line
end

-- End the script unless the user may call these commands on this key: a command denied after the first write would leave a partial
-- commit.
local function must_be_allowed(key, ...)
  for _, command in ipairs({...}) do
    local known, allowed = pcall(redis.acl_check_cmd, command, key)
    if not (known and allowed) then
      error({err = 'NOPERM ' .. command .. ' ' .. key .. ': not allowed, or not known'})
    end
  end
end

-- End the script unless the sorted sets and the set of namespaces have the right type, and the user may change them.
local function check_orders(namespaces_key, orders)
  look('SCARD', namespaces_key)
  must_be_allowed(namespaces_key, 'SADD', 'SREM')
  for _, order in ipairs(orders) do
    look('ZCARD', order)
    must_be_allowed(order, 'ZADD', 'ZREM')
  end
end

local function digits(number)
  return string.format('%.0f', number)
end

-- The same as `quoted` in keys.py. The character class lists bytes, because %w depends on the server's locale.
local function quoted(id)
  return (string.gsub(id, '[^A-Za-z0-9_.~-]', function(byte)
    return string.format('%%%02X', string.byte(byte))
  end))
end

-- Parse a stored number, or end the script. `tonumber` alone also accepts nan, inf, 1e9, 0x1 and 1.5, which we never write.
-- A time has at most 18 digits; a count is not negative and is exact as a Lua number.
local function number(key, text, least, most)
  local value = text and string.find(text, '^-?%d+$') and tonumber(text)
  if not value or value < least or value >= most then
    answer('corrupt', key)
  end
  return value
end

local function moment(key, text)
  return number(key, text, -1e18, 1e18)
end

local function count(key, text)
  return number(key, text, 0, 2 ^ 53)
end

local function is_expired(key, expires_at, now)
  return expires_at and moment(key, expires_at) <= tonumber(now)
end

local function remove_conversation(key, runs_key, orders, id)
  redis.call('UNLINK', key, runs_key)
  for _, order in ipairs(orders) do
    redis.call('ZREM', order, id)
  end
end
