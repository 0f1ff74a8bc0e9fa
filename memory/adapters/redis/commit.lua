-- Write a change set atomically.
-- KEYS: receipt, namespaces, the orders (by id, created_at, updated_at, last_run_at, expires_at), the open runs; for each change the
-- conversation and its runs.
-- ARGV: now, at, lifetime of a receipt in milliseconds, namespace, the changes as JSON (`_change` in committing.py), then the texts
-- that the changes reference by index: as arguments they need no escaping.
-- Reply: {'written', receipt} | {'repeated', receipt} | {'refused', number of the change, stored fields...} |
-- {'missing', number, position} | {'not open', number, number of the completion} | {'corrupt', key} | {'corrupt', key, 'left over'}.
-- `check_preconditions` in memory/port/changes.py turns refusals into errors.

local now, at, receipt_kept, namespace, changes = unpack(ARGV, 1, 5)
local receipt_key, namespaces_key, orders, open_runs = KEYS[1], KEYS[2], {unpack(KEYS, 3, 7)}, KEYS[8]
local by_id, by_created_at, by_updated_at, by_last_run_at, by_expires_at = unpack(orders)

local function refuse(change)
  if not change.present then
    answer('refused', change.number)
  end
  answer('refused', change.number, unpack(read_record(change.key), 1, 11))
end

-- Read the stored conversation. All numbers are checked, because unreadable data must not be overwritten.
local function read_stored(change)
  local version, incarnation, run_count, last, updated_at, last_run_at, expires_at, expires_after, open = unpack(look('HMGET',
    change.key, 'version', 'incarnation', 'run_count', 'last_position', 'updated_at', 'last_run_at', 'expires_at',
    'expires_after', 'open_runs'), 1, 9)
  local runs, listed = look('ZCARD', change.runs_key), look('ZSCORE', by_id, change.key_of_id)
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
  last_run_at = last_run_at or updated_at  -- an earlier release wrote the hash
  moment(change.key, last_run_at)
  change.last_run_at, change.lifetime = last_run_at, expires_after and count(change.key, expires_after)
  change.ends, change.open = expires_at, open_positions(change.key, open)
  if moment(change.key, updated_at) < tonumber(at) then  -- clocks differ, but updated_at never decreases
    updated_at = at
  elseif #change.complete > 0 then  -- nothing else of the record shows a completion
    updated_at = digits(updated_at + 1)
  end
  change.updated_at = updated_at
  change.present = not is_expired(change.key, expires_at, now)
end

local function is_open(text)
  return string.sub(text, -5) == '\nopen'
end

-- The runs that are open after the removals and replacements, by position. The texts of stored ones are not read yet.
local function find_open(change)
  local is_edited, open = {}, {}
  for _, run in ipairs(change.edited_runs) do
    is_edited[run[1]] = true
    if run[2] and is_open(ARGV[run[2]]) then
      open[#open + 1] = {position = run[1], text = ARGV[run[2]], is_new = true}
    end
  end
  for _, position in ipairs(change.create and {} or change.open) do
    if not is_edited[position] and position >= change.remove_before and position <= change.remove_after then
      open[#open + 1] = {position = position}
    end
  end
  table.sort(open, function(one, other) return one.position < other.position end)
  return open
end

local function read_run(change, position)
  local member = look('ZRANGE', change.runs_key, digits(position), digits(position), 'BYSCORE')[1] or ''
  return string.match(member, '^%d+\n(.*)$') or ''
end

-- Complete the last open run with an id; return whether there is one. A run that something else edited may not be open.
local function complete(change, id, output, metadata, remains_open)
  for n = #change.open_left, 1, -1 do
    local run = change.open_left[n]
    run.text = run.text or read_run(change, run.position)
    local created_at, run_id, old, input = string.match(run.text, '^([^\n]*)\n([^\n]*)\n([^\n]*)\n([^\n]*)\n[^\n]*\nopen$')
    if run_id == id then
      run.text = table.concat({created_at, id, metadata and ARGV[metadata] or old, input, ARGV[output]}, '\n')
      if remains_open then
        run.text = run.text .. '\nopen'
      else
        table.remove(change.open_left, n)
      end
      change.completed[run.position] = run.text
      return true
    end
  end
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
    local is_removed = run[1] < change.remove_before or run[1] > change.remove_after
    if create or is_removed or look('ZCOUNT', change.runs_key, digits(run[1]), digits(run[1])) == 0 then
      answer('missing', change.number, digits(run[1]))
    end
  end
  change.last, change.open, change.completed, change.open_left = last, change.open or {}, {}, {}
  if change.opens or #change.open > 0 then
    check_sorted_sets({open_runs}, 'ZADD', 'ZREM')
    change.open_left = find_open(change)
  end
  for n, completion in ipairs(change.complete) do
    local output, metadata = completion[2], completion[3] > 0 and completion[3]
    if not complete(change, completion[1], output, metadata, completion[4]) then
      answer('not open', change.number, n)
    end
  end
end

-- The functions below write. All checks come before the first of them is called.

local function add_run(change, position, text)
  redis.call('ZADD', change.runs_key, position, position .. '\n' .. text)
end

local function replace_run(change, position, text)
  position = digits(position)
  redis.call('ZREMRANGEBYSCORE', change.runs_key, position, position)
  if text then
    add_run(change, position, text)
  end
end

local function write_runs(change)
  if change.remove_before > 0 then
    redis.call('ZREMRANGEBYSCORE', change.runs_key, '-inf', '(' .. digits(change.remove_before))
  end
  if change.remove_after < math.huge then
    redis.call('ZREMRANGEBYSCORE', change.runs_key, '(' .. digits(change.remove_after), '+inf')
  end
  for _, run in ipairs(change.edited_runs) do
    replace_run(change, run[1], run[2] and ARGV[run[2]])
  end
  for position, text in pairs(change.completed) do
    replace_run(change, position, text)
  end
  for _, run in ipairs(change.append) do
    local position, text = run[1] > 0 and run[1] or change.last + 1, ARGV[run[2]]
    change.last = math.max(change.last, position)
    add_run(change, digits(position), text)
    if change.opens and is_open(text) then
      table.insert(change.open_left, {position = position, text = text, is_new = true})
    end
  end
end

-- Write the positions of the open runs, if they changed: to the hash, and to the sorted set of the namespace.
local function write_open_runs(change, add)
  local positions, left = {}, {}
  for n, run in ipairs(change.open_left) do
    positions[n], left[run.position] = digits(run.position), true
    if run.is_new then
      redis.call('ZADD', open_runs, string.match(run.text, '^[^\n]*'), open_member(change.key_of_id, run.position))
    end
  end
  for _, position in ipairs(change.open) do
    if not left[position] then
      redis.call('ZREM', open_runs, open_member(change.key_of_id, position))
    end
  end
  if #positions > 0 then
    add('open_runs', table.concat(positions, ','))
  elseif #change.open > 0 then
    redis.call('HDEL', change.key, 'open_runs')
  end
end

-- The new expiry: the one given, or the one that an append or a completion moves forward.
local function expiry(change)
  local lifetime = change.expires_after ~= 'never' and (tonumber(change.expires_after) or change.lifetime)
  if change.expires_at or change.create or not (lifetime and change.slides) then
    return change.expires_at
  end
  local expires_at = at + lifetime  -- exact up to the year 2255
  if expires_at > tonumber(change.ends or '0') then
    return expires_at < tonumber(LAST_TIME) and digits(expires_at) or LAST_TIME
  end
end

local function set_or_clear(change, name, value, add)
  if value == 'never' then
    redis.call('HDEL', change.key, name)
  elseif value then
    add(name, value)
  end
end

-- Write the conversation and its entries in the orders; return its entry for the receipt.
local function write_conversation(change)
  local expires_at, ran_at = expiry(change), change.ran_at or change.last_run_at
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
    redis.call('ZADD', by_id, 0, change.key_of_id)
    redis.call('ZADD', by_created_at, create.created_at, change.key_of_id)
    redis.call('SADD', namespaces_key, namespace)
  elseif tonumber(ran_at) < tonumber(change.last_run_at) then
    ran_at = change.last_run_at
  end
  add('last_run_at', ran_at)
  set_or_clear(change, 'expires_at', expires_at, add)
  set_or_clear(change, 'expires_after', change.expires_after, add)
  if change.opens or #change.open > 0 then
    write_open_runs(change, add)
  end
  redis.call('HSET', change.key, unpack(fields))
  redis.call('ZADD', by_updated_at, updated_at, change.key_of_id)
  redis.call('ZADD', by_last_run_at, ran_at, change.key_of_id)
  if expires_at == 'never' then
    redis.call('ZREM', by_expires_at, change.key_of_id)
  elseif expires_at then
    redis.call('ZADD', by_expires_at, expires_at, change.key_of_id)
  end
  return '[' .. table.concat({version, cjson.encode(change.incarnation), run_count, last}, ',') .. ']'
end

local function write(change)
  if (change.version or change.left_over) and (change.remove or change.create) then  -- also replaces an expired conversation
    remove_conversation(change.key, change.runs_key, orders, change.key_of_id, open_runs, change.open)
    change.open = {}
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
    return {'repeated', receipt}
  end
  must_be_allowed(receipt_key, 'SET')
  check_sorted_sets(orders, 'ZADD')
  local removes = false
  changes = cjson.decode(changes)
  for number, change in ipairs(changes) do
    removes = removes or change.remove or change.create or change.expires_at == 'never'
    change.edited_runs, change.complete, change.append = change.edited_runs or {}, change.complete or {}, change.append or {}
    change.remove_before, change.set = change.remove_before or 0, change.set or {}
    change.number, change.key, change.runs_key = number, KEYS[2 * number + 7], KEYS[2 * number + 8]
    change.key_of_id, change.remove_after = change.key_of_id or change.id, change.remove_after or math.huge
    read_stored(change)
    check(change)
    must_be_allowed(change.key, 'HSET', 'HDEL', 'UNLINK')
    must_be_allowed(change.runs_key, 'ZADD', 'ZREMRANGEBYSCORE', 'UNLINK')
  end
  if removes then
    check_namespaces(namespaces_key)
    check_sorted_sets(orders, 'ZREM')
  end
  -- If memory is full or the disk fails, Redis refuses a script's first write, but never a later one.
  local written = {}
  for number, change in ipairs(changes) do
    written[number] = cjson.encode(change.id) .. ':' .. write(change)
  end
  if removes and redis.call('ZCARD', by_id) == 0 then
    redis.call('SREM', namespaces_key, namespace)
  end
  receipt = '{' .. table.concat(written, ',') .. '}'
  redis.call('SET', receipt_key, receipt, 'PX', receipt_kept)
  return {'written', receipt}
end)
