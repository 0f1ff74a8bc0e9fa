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

local function is_expired(expires_at, now)
  return expires_at and tonumber(expires_at) <= tonumber(now)
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
