-- Write a change set: all of it, or nothing.
-- KEYS: receipt, and of each change the conversation's key and that of its positions.
-- ARGV: now, at, token, milliseconds a receipt is kept, milliseconds a key outlives its expiry; then the changes, see writing.py.
-- Answer: {'written', receipt} | {'refused', number of the change, what is stored...} | {'missing', number, position} |
-- {'corrupt', key} | {'corrupt', key, 'left over'}. What a refusal means is decided by memory.changes.check, not here.

local now, at, token, receipt_kept, grace = unpack(ARGV, 1, 5)
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
    key = KEYS[2 * number],
    positions_key = KEYS[2 * number + 1],
    run_prefix = take(),
    seen_incarnation = take(),
    seen_version = take(),
    after = take(),
    remove = take() ~= '',
    edits = take() ~= '',
    create = take_list(2),
    created_last = tonumber(take()),
    set = take_list(2),
    expires_at = take(),
    remove_before = take(),
    remove_runs = take_list(1),
    replace_runs = take_list(6),
    gives_positions = take() ~= '',
    append = take_list(6),
  }
end

local function refuse(change)
  if not change.present then
    answer('refused', change.number)
  end
  answer('refused', change.number, unpack(redis.call('HMGET', change.key, 'id', 'metadata', 'version', 'incarnation',
    'run_count', 'last_position', 'created_at', 'updated_at', 'expires_at'), 1, 9))
end

-- Read what is stored. All numbers are looked at, for what cannot be read must not be written over.
local function read_stored(change)
  local version, incarnation, run_count, last, updated_at, expires_at = unpack(look('HMGET', change.key,
    'version', 'incarnation', 'run_count', 'last_position', 'updated_at', 'expires_at'), 1, 6)
  if not (version and incarnation) then
    change.left_over = is_left_over(change.key, change.positions_key)
    change.stored = change.left_over
    return
  elseif look('ZCARD', change.positions_key) ~= count(change.key, run_count) then
    answer('corrupt', change.positions_key)
  end
  change.stored = true
  change.version, change.incarnation, change.last = count(change.key, version), incarnation, count(change.key, last)
  change.updated_at = moment(change.key, updated_at) > tonumber(at) and updated_at or at  -- clocks differ: never back
  change.expires = expires_at and true
  change.present = not is_expired(change.key, expires_at, now)
  if change.present and change.seen_version ~= '' and version ~= change.seen_version then
    refuse(change)
  end
end

-- memory.changes.check, but for the words.
local function check(change)
  local creates = change.create.size > 0
  local last = creates and change.created_last or change.last or 0
  local given = change.remove and change.present and change.last or last
  local left_over = change.left_over and change.seen_version == ''
  if left_over and not (creates or change.remove) then
    answer('corrupt', change.positions_key, 'left over')
  elseif (change.seen_version ~= '' and (not change.present or change.incarnation ~= change.seen_incarnation))
    or (not creates and not change.present and not left_over)
    or (creates and change.present and not change.remove)
    or (change.after ~= '' and tonumber(change.after) ~= given) then
    refuse(change)
  end
  if last + change.append.size >= 2 ^ 53 then
    answer('corrupt', change.key)  -- no such position could be told from the next
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
  change.creates, change.last = creates, last
end

local function check_runs(change)
  for _, list in ipairs({change.remove_runs, change.replace_runs}) do
    for from in items(list) do
      local position = ARGV[from]
      if change.creates or tonumber(position) < tonumber(change.remove_before)
        or not look('ZSCORE', change.positions_key, position) then
        answer('missing', change.number, position)
      elseif list.width > 1 and look('HLEN', change.run_prefix .. position) == 0 then
        answer('corrupt', change.run_prefix .. position)
      end
    end
  end
  local n = 0
  for from in items(change.append) do
    n = n + 1
    local position = change.gives_positions and ARGV[from] or digits(change.last + n)
    local key = change.run_prefix .. position
    if look('EXISTS', key) == 1 and not (change.creates and look('ZSCORE', change.positions_key, position)) then
      answer('corrupt', key)
    end
  end
end

-- All that the user's rights could refuse below, so that they refuse it now. (Full memory, a disk that fails and the like refuse
-- a script's first write, and none after it.)
local function check_rights(change)
  must_be_allowed_to_remove(change.key, change.positions_key, change.run_prefix)
  local run = change.run_prefix .. 1
  for _, key in ipairs({change.key, run}) do
    must_be_allowed('HSET', key, 'id', '')
  end
  for _, key in ipairs({change.key, change.positions_key, run}) do
    must_be_allowed('PEXPIREAT', key, 0)
    must_be_allowed('PERSIST', key)
  end
  must_be_allowed('HDEL', change.key, 'expires_at')
  must_be_allowed('ZADD', change.positions_key, 1, 1)
  must_be_allowed('ZCARD', change.positions_key)
end

-- Find when the keys are to end (-1: never), somewhat after the conversation: who may read it is for the clocks of the
-- applications to say, of which this one's may be ahead of the server's, or behind. So the moment has to have come by both.
-- All keys of a conversation end together.
local function find_deadline(change)
  change.deadline = -1
  if change.expires_at == '' then
    if change.expires and not (change.creates or change.remove) then
      change.deadline = look('PEXPIRETIME', change.key)
    end
  elseif change.expires_at ~= 'never' then
    local time = redis.call('TIME')
    local left = math.max(0, math.ceil((tonumber(change.expires_at) - tonumber(now)) / 1000))
    local by_this_client = time[1] * 1000 + math.floor(time[2] / 1000) + left
    change.deadline = math.max(by_this_client, math.ceil(tonumber(change.expires_at) / 1000)) + tonumber(grace)
  end
end

-- From here on everything is written.

local function write_run(change, position, from)
  redis.call('HSET', change.run_prefix .. position, 'id', ARGV[from + 1], 'input', ARGV[from + 2],
    'output', ARGV[from + 3], 'metadata', ARGV[from + 4], 'created_at', ARGV[from + 5])
end

local function edit_runs(change)
  if change.remove_before ~= '0' then
    remove_runs(change.positions_key, change.run_prefix, '(' .. change.remove_before)
  end
  for from in items(change.remove_runs) do
    redis.call('UNLINK', change.run_prefix .. ARGV[from])
    redis.call('ZREM', change.positions_key, ARGV[from])
  end
  for from in items(change.replace_runs) do
    write_run(change, ARGV[from], from)
  end
end

local function set_deadline(key, moment)
  if moment >= 0 then
    redis.call('PEXPIREAT', key, digits(moment))
  else
    redis.call('PERSIST', key)
  end
end

local function append_runs(change, moment)
  local last = change.last
  for from in items(change.append) do
    last = change.gives_positions and tonumber(ARGV[from]) or last + 1
    local position = digits(last)
    write_run(change, position, from)
    redis.call('ZADD', change.positions_key, position, position)
    if moment >= 0 then
      set_deadline(change.run_prefix .. position, moment)
    end
  end
  change.last = math.max(change.last, last)
  if moment >= 0 and change.append.size > 0 then
    set_deadline(change.positions_key, moment)
  end
end

local function write_conversation(change, moment)
  local run_count = redis.call('ZCARD', change.positions_key)
  local fields = {'run_count', digits(run_count), 'last_position', digits(change.last)}
  local function add(name, value)
    fields[#fields + 1], fields[#fields + 2] = name, value
  end
  for _, list in ipairs({change.create, change.set}) do
    for from in items(list) do
      add(ARGV[from], ARGV[from + 1])
    end
  end
  if change.creates then
    add('incarnation', token)
  else
    add('updated_at', change.updated_at)
    add('by_updated_at', change.updated_at)
    if change.edits then
      add('version', digits(change.version + 1))
    end
  end
  if change.expires_at == 'never' then
    redis.call('HDEL', change.key, 'expires_at')
  elseif change.expires_at ~= '' then
    add('expires_at', change.expires_at)
  end
  redis.call('HSET', change.key, unpack(fields))
  if change.expires_at ~= '' and not (change.creates and moment < 0) then
    set_deadline(change.key, moment)
    set_deadline(change.positions_key, moment)
    for _, position in ipairs(redis.call('ZRANGE', change.positions_key, 0, -1)) do
      set_deadline(change.run_prefix .. position, moment)
    end
  end
  local version, incarnation = '', token
  if change.creates then
    version = redis.call('HMGET', change.key, 'version')[1]
  else
    version, incarnation = digits(change.version + (change.edits and 1 or 0)), change.incarnation
  end
  return {version, incarnation, digits(run_count), digits(change.last)}
end

local function write(change)
  if change.stored and (change.remove or change.creates) then  -- an expired one makes way too
    remove_conversation(change.key, change.positions_key, change.run_prefix)
  end
  if change.remove and not change.creates then
    return ''
  end
  edit_runs(change)
  append_runs(change, change.deadline)
  return write_conversation(change, change.deadline)
end

return answered(function()
  local receipt = look('GET', KEYS[1])
  if receipt then
    return {'written', receipt}
  end
  local changes = {}
  for number = 1, (#KEYS - 1) / 2 do
    local change = take_change(number)
    changes[number] = change
    read_stored(change)
    check(change)
    check_runs(change)
    check_rights(change)
    find_deadline(change)
  end
  must_be_allowed('TIME')
  must_be_allowed('SET', KEYS[1], '', 'PX', receipt_kept)
  local written = {}
  for number, change in ipairs(changes) do
    written[number] = write(change)
  end
  receipt = cjson.encode(written)
  redis.call('SET', KEYS[1], receipt, 'PX', receipt_kept)
  return {'written', receipt}
end)
