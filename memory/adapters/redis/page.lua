-- A page of conversations, in order: the first so many of a query beyond a place.
--
-- The server sorts all that a query finds, however few are wanted; to find so many, in no order, costs it as many. So windows are
-- tried, from the place on, until one has enough and not many more, and only that is sorted. A window is on one number: the
-- levels are the time, and the id's first bytes; the last level goes on where all those before it are as at the place.
--
-- ARGV: index, query, milliseconds for all, size, '' or the filter, '' or the condition of being beyond the place, direction;
-- how many levels, and of each: the field, the condition of being as at the place in those before, the near end, where to begin, the
-- far end, the first step, and the parts of what lies nearer; then the arguments that sort and load.
-- Answer: {warning or '', rows...}, a row being what is loaded, '' where there is none.

local index, query, milliseconds, size, filter, beyond, direction = unpack(ARGV, 1, 7)
local ascending = direction == 'ASC'
size = tonumber(size)

local function levels_of(number, at)
  local levels = {}
  for n = 1, number do
    local field, equal, near, begin, far, step, nearer = unpack(ARGV, at, at + 6)
    levels[n] = {field = field, equal = equal, near = near, begin = tonumber(begin), far = tonumber(far),
      step = tonumber(step), nearer = nearer}
    at = at + 7
  end
  return levels, at
end

local begun = os.clock()  -- of the processor, which the script has to itself: in a script TIME stands still

-- Ask the index, within what is left of the time for all: a page may take some eighty questions.
local function aggregate(condition, ...)
  local left = math.floor(milliseconds - 1000 * (os.clock() - begun))
  if left < 1 then
    answer('the time was up')
  end
  local arguments = {index, query .. ' ' .. condition, ...}
  for _, argument in ipairs({'TIMEOUT', left, 'DIALECT', 2}) do
    arguments[#arguments + 1] = argument
  end
  local answer = {}
  for name, value in pairs(redis.call('FT.AGGREGATE', unpack(arguments)).map) do
    answer[type(name) == 'table' and name.ok or name] = value
  end
  return answer
end

-- Whether at least so many meet a condition. (A query cut short may say no: that costs time, and no answer.)
local function has(condition, number)
  return #aggregate(condition, 'LIMIT', digits(number - 1), 1).results > 0
end

local function range(level, bound)
  local far = bound and digits(bound) or (ascending and '+inf' or '-inf')
  local ends = ascending and (level.near .. ' ' .. far) or (far .. ' ' .. level.near)
  return level.equal .. '@' .. level.field .. ':[' .. ends .. ']'
end

-- Return how far a window reaches that has enough, and not much more where that can be had.
local function reach(level)
  local towards = ascending and 1 or -1
  local less, enough, step = level.begin, nil, level.step
  if has(range(level, less), size) then  -- much lies before where it was to begin: times to come
    less = -towards * 2 ^ 58
  end
  while not enough do
    local bound = less + towards * step
    if (bound - level.far) * towards >= 0 then
      enough = level.far
    elseif has(range(level, bound), size) then
      enough = bound
    else
      less, step = bound, step * 32
    end
  end
  while has(range(level, enough), 4 * size) do
    local nearer
    repeat
      local middle = math.floor((less + enough) / 2)
      if middle == less or middle == enough then
        return enough
      end
      nearer = has(range(level, middle), size)
      if nearer then
        enough = middle
      else
        less = middle
      end
    until nearer
  end
  return enough
end

local function window(levels)
  if has(beyond, 2 * size + 3000 + #query) then  -- fewer are sooner sorted than looked for, the longer the query the more
    for n = #levels, 1, -1 do
      local level = levels[n]
      if has(range(level), size) then
        local part = range(level, reach(level))
        return level.nearer == '' and part or '((' .. part .. ') | ' .. level.nearer .. ')'
      end
    end
  end
  return beyond
end

return answered(function()
  redis.setresp(3)  -- in which an answer says that it was cut short
  local levels, at = levels_of(tonumber(ARGV[8]), 9)
  local steps, loaded = {unpack(ARGV, at)}, {}
  if filter ~= '' then
    table.insert(steps, 1, filter)
    table.insert(steps, 1, 'FILTER')
  end
  local answer = aggregate(window(levels), unpack(steps))
  local warning = answer.warning and answer.warning[1]
  local result = {type(warning) == 'table' and warning.ok or warning or ''}
  for n = #steps, 1, -1 do
    if string.sub(steps[n], 1, 1) ~= '@' then
      break
    end
    table.insert(loaded, 1, string.sub(steps[n], 2))
  end
  for n, found in ipairs(answer.results) do
    local row, fields = {}, nil
    for name, value in pairs(found.map) do
      if (type(name) == 'table' and name.ok or name) == 'extra_attributes' then
        fields = value.map
      end
    end
    for place, name in ipairs(loaded) do
      row[place] = fields[name] or ''
      if name == 'expires_at' and (tonumber(row[place]) or 0) >= 2 ^ 53 then  -- indexed, it comes as the nearest double
        row[place] = redis.call('HGET', fields.__key, name) or ''
      end
    end
    result[n + 1] = row
  end
  return result
end)
