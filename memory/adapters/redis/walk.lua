-- Read conversations in an order, from a place on; with a query, only those that it finds.
-- KEYS: the order. ARGV: beginning of the conversations' keys, ASC or DESC, score and id of the place ('' and '': the beginning),
-- how many members of the order to pass; and with a query: index, query, field, matches at most, milliseconds.
-- Answer: {'' or what cut the query short, kind, members passed, score and id of the last of them ('' and '': the end),
-- conversations}. The kind is 'matched' for the query's matches, 'passed' for all that were passed, 'too many' for none.
--
-- A query looks at the conversations whose times lie between the first and the last member passed. Where too many have one and
-- the same time, they are read without the query.

local conversations, direction, score, id, size, index, query, field, most, milliseconds = unpack(ARGV)
local order, ascending = KEYS[1], direction == 'ASC'
size, most = tonumber(size), tonumber(most)

local function before(one, other)  -- by bytes: Lua's own < depends on the server's locale
  for n = 1, math.min(#one, #other) do
    local a, b = string.byte(one, n), string.byte(other, n)
    if a ~= b then
      return a < b
    end
  end
  return #one < #other
end

-- Return the rank of the first member beyond the place. The member at the place itself may be gone.
local function first_rank(total)
  if score == '' then
    return 0
  end
  local low, high = redis.call('ZCOUNT', order, '-inf', '(' .. score), redis.call('ZCOUNT', order, '-inf', score)
  while low < high do
    local middle = math.floor((low + high) / 2)
    local member = redis.call('ZRANGE', order, middle, middle)[1]
    if before(member, id) or (ascending and member == id) then
      low = middle + 1
    else
      high = middle
    end
  end
  return ascending and low or total - low
end

local function range(first, last, ...)
  if ascending then
    return redis.call('ZRANGE', order, first, last, ...)
  end
  return redis.call('ZRANGE', order, first, last, 'REV', ...)
end

local function read(keys)
  local rows = {}
  for n, key in ipairs(keys) do
    looked_at = key
    rows[n] = redis.call('HMGET', key, 'id', 'metadata', 'version', 'incarnation', 'run_count', 'last_position',
      'created_at', 'updated_at', 'expires_at')
    rows[n][10] = key
  end
  return rows
end

-- Return the keys that the query finds between two times, one more than `most` at most, and what cut it short.
local function matches(near, far)
  local low, high = near, far
  if not ascending then
    low, high = far, near
  end
  redis.setresp(3)  -- only in RESP3 does the answer say that it was cut short
  local found, keys, warning = {}, {}, ''
  for name, value in pairs(redis.call('FT.AGGREGATE', index, query .. ' @' .. field .. ':[' .. low .. ' ' .. high .. ']',
      'LIMIT', 0, most + 1, 'LOAD', 1, '@__key', 'TIMEOUT', milliseconds, 'DIALECT', 2).map) do
    found[type(name) == 'table' and name.ok or name] = value
  end
  redis.setresp(2)
  if found.warning and found.warning[1] then
    warning = type(found.warning[1]) == 'table' and found.warning[1].ok or found.warning[1]
  end
  for n, result in ipairs(found.results) do
    for name, value in pairs(result.map) do
      if (type(name) == 'table' and name.ok or name) == 'extra_attributes' then
        keys[n] = value.map.__key
      end
    end
  end
  return keys, warning
end

return answered(function()
  local total = look('ZCARD', order)
  local first = first_rank(total)
  if first >= total then
    return {'', 'passed', 0, '', '', {}}
  end
  size = math.min(size, total - first)
  local near = range(first, first, 'WITHSCORES')[2]
  local last = first + size - 1
  local far_id, far = unpack(range(last, last, 'WITHSCORES'))
  local place = last + 1 < total and {far, far_id} or {'', ''}
  if query then
    local keys, warning = matches(near, far)
    if warning ~= '' or #keys <= most then
      return {warning, 'matched', size, place[1], place[2], read(keys)}
    elseif size > most then
      return {'', 'too many', size, '', '', {}}
    end
  end
  local keys = {}
  for n, member in ipairs(range(first, last)) do
    keys[n] = conversations .. quoted(member)
  end
  return {'', 'passed', size, place[1], place[2], read(keys)}
end)
