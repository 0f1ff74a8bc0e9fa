-- Write a change set: all of it, or nothing.
-- KEYS: receipt, namespaces, the orders (by id, created_at, updated_at, expires_at); of each change the conversation and its runs.
-- ARGV: now, at, milliseconds a receipt is kept, namespace; then the changes, as `_arguments` in committing.py yields them.
-- Answer: {'written', receipt} | {'refused', number of the change, what is stored...} | {'missing', number, position} |
-- {'corrupt', key} | {'corrupt', key, 'left over'}. `check_preconditions` in memory/port/changes.py gives refusals their meaning.

local now, at, receipt_kept, namespace = unpack(ARGV, 1, 4)
local receipt_key, namespaces_key, orders = KEYS[1], KEYS[2], {unpack(KEYS, 3, 6)}
local by_id, by_created_at, by_updated_at, by_expires_at = unpack(orders)
local cursor = 4

local function take()
  cursor = cursor + 1
  return ARGV[cursor]
end

-- Step over a list of pairs; return an iterator over them, which can be used several times.
local function take_pairs()
  local from, size = cursor + 2, tonumber(take())
  cursor = cursor + 2 * size
  return {size = size, each = function()
    local n = -1
    return function()
      n = n + 1
      if n < size then
        return ARGV[from + 2 * n], ARGV[from + 2 * n + 1]
      end
    end
  end}
end

local function take_change(number)
  return {
    number = number,
    key = KEYS[2 * number + 5],
    runs_key = KEYS[2 * number + 6],
    id = take(),
    seen_incarnation = take(),
    seen_version = take(),
    after = take(),
    remove = take() ~= '',
    edits = take() ~= '',
    created_version = take(),
    created_last = tonumber(take()),
    updated_at = take(),
    set = take_pairs(),
    expires_at = take(),
    remove_before = take(),
    edited_runs = take_pairs(),
    append = take_pairs(),
  }
end

local function refuse(change)
  if not change.present then
    answer('refused', change.number)
  end
  answer('refused', change.number, unpack(redis.call('HMGET', change.key, 'id', 'metadata', 'version', 'incarnation',
    'run_count', 'last_position', 'created_at', 'updated_at', 'expires_at'), 1, 9))
end

-- Read what is stored. All numbers are checked, because what cannot be read must not be overwritten.
local function read_stored(change)
  local version, incarnation, run_count, last, updated_at, expires_at = unpack(look('HMGET', change.key,
    'version', 'incarnation', 'run_count', 'last_position', 'updated_at', 'expires_at'), 1, 6)
  local runs, listed = look('ZCARD', change.runs_key), look('ZSCORE', by_id, change.id)
  if not (version and incarnation) then
    if look('EXISTS', change.key) == 1 then
      answer('corrupt', change.key)
    end
    change.left_over = runs > 0 or listed  -- the hash is gone, as after FT.DROPINDEX ... DD
    return
  elseif runs ~= count(change.key, run_count) then
    answer('corrupt', change.runs_key)
  elseif not listed then
    answer('corrupt', by_id)
  end
  change.version, change.incarnation, change.last = count(change.key, version), incarnation, count(change.key, last)
  if look('ZCOUNT', change.runs_key, '(' .. last, '+inf') > 0 then
    answer('corrupt', change.runs_key)
  end
  if moment(change.key, updated_at) < tonumber(at) then  -- clocks differ, and times never go back
    updated_at = at
  end
  change.updated_at = change.creates and change.updated_at or updated_at
  change.present = not is_expired(change.key, expires_at, now)
  if change.present and change.seen_version ~= '' and version ~= change.seen_version then
    refuse(change)
  end
end

-- The same as `check_preconditions`, without its messages.
local function check(change)
  local creates = change.creates
  local last = creates and change.created_last or change.last or 0
  local given = change.remove and change.present and change.last or last
  local left_over = change.left_over and change.seen_version == ''
  if left_over and not (creates or change.remove) then
    answer('corrupt', change.key, 'left over')
  elseif (change.seen_version ~= '' and (not change.present or change.incarnation ~= change.seen_incarnation))
    or (not creates and not change.present and not left_over)
    or (creates and change.present and not change.remove)
    or (change.after ~= '' and tonumber(change.after) ~= given) then
    refuse(change)
  elseif last + change.append.size >= 2 ^ 53 then
    answer('corrupt', change.key)  -- the next position would not be exact
  end
  local before = creates and 0 or last
  for position in change.append.each() do
    if position ~= '0' and tonumber(position) <= before then
      refuse(change)
    end
    before = tonumber(position)
  end
  for position in change.edited_runs.each() do
    if creates or tonumber(position) < tonumber(change.remove_before)
      or look('ZCOUNT', change.runs_key, position, position) == 0 then
      answer('missing', change.number, position)
    end
  end
  change.last = last
end

-- From here on everything is written.

local function write_runs(change)
  if change.remove_before ~= '0' then
    redis.call('ZREMRANGEBYSCORE', change.runs_key, '-inf', '(' .. change.remove_before)
  end
  for position, run in change.edited_runs.each() do
    redis.call('ZREMRANGEBYSCORE', change.runs_key, position, position)
    if run ~= '' then
      redis.call('ZADD', change.runs_key, position, position .. '\n' .. run)
    end
  end
  for given, run in change.append.each() do
    change.last = given == '0' and change.last + 1 or math.max(change.last, tonumber(given))
    local position = given == '0' and digits(change.last) or given
    redis.call('ZADD', change.runs_key, position, position .. '\n' .. run)
  end
end

-- Write the conversation and its places in the orders; return what the receipt has of it.
local function write_conversation(change)
  local run_count, last = digits(redis.call('ZCARD', change.runs_key)), digits(change.last)
  local version = change.creates and change.created_version or digits(change.version + (change.edits and 1 or 0))
  local fields = {'version', version, 'run_count', run_count, 'last_position', last, 'updated_at', change.updated_at}
  for name, value in change.set.each() do
    table.insert(fields, name)
    table.insert(fields, value)
  end
  if change.expires_at == 'never' then
    redis.call('HDEL', change.key, 'expires_at')
    redis.call('ZREM', by_expires_at, change.id)
  elseif change.expires_at ~= '' then
    table.insert(fields, 'expires_at')
    table.insert(fields, change.expires_at)
    redis.call('ZADD', by_expires_at, change.expires_at, change.id)
  end
  redis.call('HSET', change.key, unpack(fields))
  redis.call('ZADD', by_updated_at, change.updated_at, change.id)
  local incarnation, created_at = unpack(redis.call('HMGET', change.key, 'incarnation', 'created_at'))
  if change.creates then
    redis.call('ZADD', by_id, 0, change.id)
    redis.call('ZADD', by_created_at, created_at, change.id)
    redis.call('SADD', namespaces_key, namespace)
  end
  return '[' .. table.concat({version, cjson.encode(incarnation), run_count, last}, ',') .. ']'
end

local function write(change)
  if (change.version or change.left_over) and (change.remove or change.creates) then  -- also replaces one that has expired
    remove_conversation(change.key, change.runs_key, orders, change.id)
  end
  if change.remove and not change.creates then
    return 'null'
  end
  write_runs(change)
  return write_conversation(change)
end

return answered(function()
  local receipt = look('GET', receipt_key)
  if receipt then
    return {'written', receipt}
  end
  check_orders(namespaces_key, orders)
  must_be_allowed(receipt_key, 'SET')
  local changes, written = {}, {}
  for number = 1, (#KEYS - 6) / 2 do
    local change = take_change(number)
    change.creates = change.created_version ~= ''
    read_stored(change)
    check(change)
    must_be_allowed(change.key, 'HSET', 'HDEL', 'UNLINK')
    must_be_allowed(change.runs_key, 'ZADD', 'ZREMRANGEBYSCORE', 'UNLINK')
    changes[number] = change
  end
  -- Full memory and a failing disk refuse a script's first write, and none after it.
  for number, change in ipairs(changes) do
    written[number] = cjson.encode(change.id) .. ':' .. write(change)
  end
  if redis.call('ZCARD', by_id) == 0 then
    redis.call('SREM', namespaces_key, namespace)
  end
  receipt = '{' .. table.concat(written, ',') .. '}'
  redis.call('SET', receipt_key, receipt, 'PX', receipt_kept)
  return {'written', receipt}
end)
