-- Write a change set atomically.
-- KEYS: receipt, namespaces, the orders (by id, created_at, updated_at, expires_at); for each change the conversation and its runs.
-- ARGV: now, at, lifetime of a receipt in milliseconds, namespace, the changes as JSON (`_change` in committing.py), then the texts
-- that the changes reference by index: as arguments they need no escaping.
-- Reply: {'written', receipt} | {'refused', number of the change, stored fields...} | {'missing', number, position} |
-- {'corrupt', key} | {'corrupt', key, 'left over'}. `check_preconditions` in memory/port/changes.py turns refusals into errors.

local now, at, receipt_kept, namespace, changes = unpack(ARGV, 1, 5)
local receipt_key, namespaces_key, orders = KEYS[1], KEYS[2], {unpack(KEYS, 3, 6)}
local by_id, by_created_at, by_updated_at, by_expires_at = unpack(orders)

local function refuse(change)
  if not change.present then
    answer('refused', change.number)
  end
  answer('refused', change.number, unpack(read_record(change.key), 1, 9))
end

-- Read the stored conversation. All numbers are checked, because unreadable data must not be overwritten.
local function read_stored(change)
  local version, incarnation, run_count, last, updated_at, expires_at = unpack(look('HMGET', change.key,
    'version', 'incarnation', 'run_count', 'last_position', 'updated_at', 'expires_at'), 1, 6)
  local runs, listed = look('ZCARD', change.runs_key), look('ZSCORE', by_id, change.id)
  if not (version and incarnation) then
    if look('EXISTS', change.key) == 1 then
      answer('corrupt', change.key)
    end
    change.left_over = runs > 0 or listed  -- the hash was deleted, for example by FT.DROPINDEX ... DD
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
  if moment(change.key, updated_at) < tonumber(at) then  -- clocks differ, but updated_at never decreases
    updated_at = at
  end
  change.updated_at = updated_at
  change.present = not is_expired(change.key, expires_at, now)
end

-- The same checks as in `check_preconditions`, without its messages.
local function check(change)
  local create, expected = change.create, change.expected
  local last = create and create.last or change.last or 0
  local given = change.remove and change.present and change.last or last
  local left_over = change.left_over and not expected
  if left_over and not (create or change.remove) then
    answer('corrupt', change.key, 'left over')
  elseif (expected and not (change.present and change.incarnation == expected[1] and change.version == expected[2]))
    or (not create and not change.present and not left_over)
    or (create and change.present and not change.remove)
    or (change.after and change.after ~= given) then
    refuse(change)
  elseif last + #change.append >= 2 ^ 53 then
    answer('corrupt', change.key)  -- the next position would not be exact
  end
  local before = create and 0 or last
  for _, run in ipairs(change.append) do
    if run[1] ~= 0 and run[1] <= before then
      refuse(change)
    end
    before = run[1]
  end
  for _, run in ipairs(change.edited_runs) do
    if create or run[1] < change.remove_before or look('ZCOUNT', change.runs_key, digits(run[1]), digits(run[1])) == 0 then
      answer('missing', change.number, digits(run[1]))
    end
  end
  change.last = last
end

-- The functions below write. All checks come before the first of them is called.

local function add_run(change, position, text)
  redis.call('ZADD', change.runs_key, position, position .. '\n' .. ARGV[text])
end

local function write_runs(change)
  if change.remove_before > 0 then
    redis.call('ZREMRANGEBYSCORE', change.runs_key, '-inf', '(' .. digits(change.remove_before))
  end
  for _, run in ipairs(change.edited_runs) do
    local position = digits(run[1])
    redis.call('ZREMRANGEBYSCORE', change.runs_key, position, position)
    if run[2] then
      add_run(change, position, run[2])
    end
  end
  for _, run in ipairs(change.append) do
    local position = run[1] > 0 and run[1] or change.last + 1
    change.last = math.max(change.last, position)
    add_run(change, digits(position), run[2])
  end
end

-- Write the conversation and its entries in the orders; return its entry for the receipt.
local function write_conversation(change)
  local create, run_count, last = change.create, digits(redis.call('ZCARD', change.runs_key)), digits(change.last)
  local version = digits(create and create.version or change.version + (change.edits and 1 or 0))
  local updated_at = create and create.updated_at or change.updated_at
  local fields = {'version', version, 'run_count', run_count, 'last_position', last, 'updated_at', updated_at}
  local function add(name, value)
    fields[#fields + 1], fields[#fields + 2] = name, value
  end
  for name, text in pairs(change.set) do
    add(name, ARGV[text])
  end
  if create then
    change.incarnation = create.incarnation
    add('incarnation', create.incarnation)
    add('created_at', create.created_at)
    redis.call('ZADD', by_id, 0, change.id)
    redis.call('ZADD', by_created_at, create.created_at, change.id)
    redis.call('SADD', namespaces_key, namespace)
  end
  if change.expires_at == 'never' then
    redis.call('HDEL', change.key, 'expires_at')
    redis.call('ZREM', by_expires_at, change.id)
  elseif change.expires_at then
    add('expires_at', change.expires_at)
    redis.call('ZADD', by_expires_at, change.expires_at, change.id)
  end
  redis.call('HSET', change.key, unpack(fields))
  redis.call('ZADD', by_updated_at, updated_at, change.id)
  return '[' .. table.concat({version, cjson.encode(change.incarnation), run_count, last}, ',') .. ']'
end

local function write(change)
  if (change.version or change.left_over) and (change.remove or change.create) then  -- also replaces an expired conversation
    remove_conversation(change.key, change.runs_key, orders, change.id)
  end
  if change.remove and not change.create then
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
  changes = cjson.decode(changes)
  for number, change in ipairs(changes) do
    change.number, change.key, change.runs_key = number, KEYS[2 * number + 5], KEYS[2 * number + 6]
    read_stored(change)
    check(change)
    must_be_allowed(change.key, 'HSET', 'HDEL', 'UNLINK')
    must_be_allowed(change.runs_key, 'ZADD', 'ZREMRANGEBYSCORE', 'UNLINK')
  end
  -- If memory is full or the disk fails, Redis refuses a script's first write, but never a later one.
  local written = {}
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
