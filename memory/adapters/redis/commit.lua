-- Write a change set: all of it, or nothing.
-- KEYS: receipt, namespaces, the orders (by id, created_at, updated_at, expires_at); of each change the conversation and its runs.
-- ARGV: now, at, token, milliseconds a receipt is kept, namespace; then the changes, as `_arguments` in committing.py writes them.
-- Answer: {'written', receipt} | {'refused', number of the change, what is stored...} | {'missing', number, position} |
-- {'corrupt', key} | {'corrupt', key, 'left over'}. `check_preconditions` in memory/port/changes.py gives refusals their meaning.

local now, at, token, receipt_kept, namespace = unpack(ARGV, 1, 5)
local namespaces_key, orders = KEYS[2], {unpack(KEYS, 3, 6)}
local by_id, by_created_at, by_updated_at, by_expires_at = unpack(orders)
local cursor = 5

local function take()
  cursor = cursor + 1
  return ARGV[cursor]
end

-- Step over a list of items of so many arguments each; return where it is.
local function take_list(width)
  local size = tonumber(take())
  local list = {from = cursor + 1, size = size, width = width}
  cursor = cursor + size * width
  return list
end

local function items(list)
  local n = -1
  return function()
    n = n + 1
    if n < list.size then
      return list.from + n * list.width
    end
  end
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
    creates = take() ~= '',
    created_last = tonumber(take()),
    created_at = take(),
    updated_at = take(),
    set = take_list(2),
    expires_at = take(),
    remove_before = take(),
    remove_runs = take_list(1),
    replace_runs = take_list(2),
    gives_positions = take() ~= '',
    append = take_list(2),
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
  if not (version and incarnation) then
    change.left_over = is_left_over(change.key, change.runs_key, by_id, change.id)
    change.stored = change.left_over
    return
  elseif look('ZCARD', change.runs_key) ~= count(change.key, run_count) then
    answer('corrupt', change.runs_key)
  elseif not look('ZSCORE', by_id, change.id) then
    answer('corrupt', by_id)
  end
  change.stored = true
  change.version, change.incarnation, change.last = count(change.key, version), incarnation, count(change.key, last)
  local later = moment(change.key, updated_at) > tonumber(at)
  if not change.creates then
    change.updated_at = later and updated_at or at  -- clocks differ, and times never go back
  end
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
  end
  if last + change.append.size >= 2 ^ 53 then
    answer('corrupt', change.key)  -- the next position would not be exact
  end
  if change.gives_positions then
    local before = creates and 0 or last
    for from in items(change.append) do
      local position = tonumber(ARGV[from])
      if position <= before then
        refuse(change)
      end
      before = position
    end
  end
  change.last = last
end

local function check_runs(change)
  for _, list in ipairs({change.remove_runs, change.replace_runs}) do
    for from in items(list) do
      local position = ARGV[from]
      if change.creates or tonumber(position) < tonumber(change.remove_before)
        or look('ZCOUNT', change.runs_key, position, position) == 0 then
        answer('missing', change.number, position)
      end
    end
  end
  if change.version and not change.creates and look('ZCOUNT', change.runs_key, '(' .. digits(change.last), '+inf') > 0 then
    answer('corrupt', change.runs_key)
  end
end

-- Check every right that the writes below need. (Full memory and a failing disk refuse a script's first write, and none after it.)
local function check_rights(change)
  must_be_allowed_to_remove(change.key, change.runs_key)
  must_be_allowed('HSET', change.key, 'id', '')
  must_be_allowed('HDEL', change.key, 'expires_at')
  must_be_allowed('ZADD', change.runs_key, 1, '')
  must_be_allowed('ZREMRANGEBYSCORE', change.runs_key, 1, 1)
  must_be_allowed('ZCARD', change.runs_key)
end

-- From here on everything is written.

local function edit_runs(change)
  if change.remove_before ~= '0' then
    redis.call('ZREMRANGEBYSCORE', change.runs_key, '-inf', '(' .. change.remove_before)
  end
  for from in items(change.remove_runs) do
    redis.call('ZREMRANGEBYSCORE', change.runs_key, ARGV[from], ARGV[from])
  end
  for from in items(change.replace_runs) do
    redis.call('ZREMRANGEBYSCORE', change.runs_key, ARGV[from], ARGV[from])
    redis.call('ZADD', change.runs_key, ARGV[from], ARGV[from] .. '\n' .. ARGV[from + 1])
  end
end

local function append_runs(change)
  local last = change.last
  for from in items(change.append) do
    last = change.gives_positions and tonumber(ARGV[from]) or last + 1
    local position = digits(last)
    redis.call('ZADD', change.runs_key, position, position .. '\n' .. ARGV[from + 1])
  end
  change.last = math.max(change.last, last)
end

local function write_orders(change)
  redis.call('ZADD', by_updated_at, change.updated_at, change.id)
  if change.creates then
    redis.call('ZADD', by_id, 0, change.id)
    redis.call('ZADD', by_created_at, change.created_at, change.id)
    redis.call('SADD', namespaces_key, namespace)
  end
  if change.expires_at == 'never' then
    redis.call('ZREM', by_expires_at, change.id)
  elseif change.expires_at ~= '' then
    redis.call('ZADD', by_expires_at, change.expires_at, change.id)
  end
end

local function write_conversation(change)
  local run_count = redis.call('ZCARD', change.runs_key)
  local fields = {'run_count', digits(run_count), 'last_position', digits(change.last), 'updated_at', change.updated_at}
  local function add(name, value)
    fields[#fields + 1], fields[#fields + 2] = name, value
  end
  for from in items(change.set) do
    add(ARGV[from], ARGV[from + 1])
  end
  if change.creates then
    change.incarnation = token
    add('incarnation', token)
    add('created_at', change.created_at)
  elseif change.edits then
    change.version = change.version + 1
    add('version', digits(change.version))
  end
  if change.expires_at == 'never' then
    redis.call('HDEL', change.key, 'expires_at')
  elseif change.expires_at ~= '' then
    add('expires_at', change.expires_at)
  end
  redis.call('HSET', change.key, unpack(fields))
  local version = change.creates and redis.call('HMGET', change.key, 'version')[1] or digits(change.version)
  return {version, change.incarnation, digits(run_count), digits(change.last)}
end

local function write(change)
  if change.stored and (change.remove or change.creates) then  -- also replaces one that has expired
    remove_conversation(change.key, change.runs_key, orders, change.id)
  end
  if change.remove and not change.creates then
    return ''
  end
  edit_runs(change)
  append_runs(change)
  write_orders(change)
  return write_conversation(change)
end

return answered(function()
  local receipt = look('GET', KEYS[1])
  if receipt then
    return {'written', receipt}
  end
  check_orders(namespaces_key, orders)
  must_be_allowed('SET', KEYS[1], '', 'PX', receipt_kept)
  local changes = {}
  for number = 1, (#KEYS - 6) / 2 do
    local change = take_change(number)
    changes[number] = change
    read_stored(change)
    check(change)
    check_runs(change)
    check_rights(change)
  end
  local written = {}
  for number, change in ipairs(changes) do
    written[number] = write(change)
  end
  if redis.call('ZCARD', by_id) == 0 then
    redis.call('SREM', namespaces_key, namespace)
  end
  receipt = cjson.encode(written)
  redis.call('SET', KEYS[1], receipt, 'PX', receipt_kept)
  return {'written', receipt}
end)
