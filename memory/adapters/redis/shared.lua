-- What the scripts have in common. A script looks at everything before it writes anything: Redis takes nothing back.

local looked_at  -- a key of somebody else's type is an error of Redis's that does not name it

local function look(command, key, ...)
  looked_at = key
  return redis.call(command, key, ...)
end

-- End the script with this answer, from inside whatever function.
local function answer(...)
  error({answer = {...}})
end

-- End the script where the user may not do this, or the server cannot. Half-way it would be too late to find out.
local function must_be_allowed(command, ...)
  local known, allowed = pcall(redis.acl_check_cmd, command, ...)
  if not (known and allowed) then
    error({err = 'NOPERM ' .. table.concat({command, (...)}, ' ') .. ': not allowed, or not known'})
  end
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
  return redis.error_reply(message)  -- with its code first; thrown on, it would have the script's line there
end

local function digits(number)
  return string.format('%.0f', number)
end

-- Return the number that a text at a key is, or end the script where it is none that we write: `tonumber` takes nan, inf, 1e9, 0x1
-- and 1.5 as well. A moment may be negative, and has 18 digits at most; a count keeps its last digit in a Lua number.
local function moment(key, text)
  local number = text and string.find(text, '^-?%d+$') and tonumber(text)
  if not number or math.abs(number) >= 1e18 then
    answer('corrupt', key)
  end
  return number
end

local function count(key, text)
  local number = moment(key, text)
  if number < 0 or number >= 2 ^ 53 then
    answer('corrupt', key)
  end
  return number
end

-- Whether the runs of a conversation are there although its hash is not, as FT.DROPINDEX ... DD leaves them.
local function is_left_over(key, positions_key)
  if look('EXISTS', key) == 1 then
    answer('corrupt', key)
  end
  return look('ZCARD', positions_key) > 0  -- which also ends the script where it is no sorted set
end

local function is_expired(key, expires_at, now)
  return expires_at and moment(key, expires_at) <= tonumber(now)
end

local function must_be_allowed_to_remove(key, positions_key, run_prefix)
  must_be_allowed('ZRANGE', positions_key, 0, 0)
  must_be_allowed('ZREM', positions_key, 1)
  must_be_allowed('UNLINK', run_prefix .. 1)  -- rights to one run's key are rights to all
  must_be_allowed('UNLINK', key)
end

-- Remove the runs at positions from the first up to one, in pieces that fit Lua's stack.
local function remove_runs(positions_key, run_prefix, up_to)
  repeat
    local some = redis.call('ZRANGE', positions_key, '-inf', up_to, 'BYSCORE', 'LIMIT', 0, 1000)
    if #some > 0 then
      local keys = {}
      for n, position in ipairs(some) do
        keys[n] = run_prefix .. position
      end
      redis.call('UNLINK', unpack(keys))
      redis.call('ZREM', positions_key, unpack(some))
    end
  until #some < 1000
end

local function remove_conversation(key, positions_key, run_prefix)
  remove_runs(positions_key, run_prefix, '+inf')
  redis.call('UNLINK', key)
end
