-- Read a page of conversations in an order, starting after a place.
-- KEYS: the order. ARGV: prefix of the conversations' keys, ASC or DESC, score and id of the place ('' and '': the beginning),
-- the page size. Reply: {score and id of the last one ('' and '': the end), conversations, each with its key as the last field}.

local conversations, direction, score, id, size = unpack(ARGV)
local order, ascending = KEYS[1], direction == 'ASC'

local function before(one, other)  -- compares bytes: Lua's < depends on the server's locale
  for n = 1, math.min(#one, #other) do
    local a, b = string.byte(one, n), string.byte(other, n)
    if a ~= b then
      return a < b
    end
  end
  return #one < #other
end

-- Return the rank of the first member after the place. The member at the place itself may have been removed.
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

return answered(function()
  local total = look('ZCARD', order)
  local first = first_rank(total)
  local last = first + size - 1
  local range = {'ZRANGE', order, first, last, not ascending and 'REV' or nil}
  local members = redis.call(unpack(range))
  local rows = {}
  for n, member in ipairs(members) do
    local key = conversations .. quoted(member)
    rows[n] = read_record(key)
    rows[n][10] = key
  end
  if last + 1 >= total then
    return {'', '', rows}
  end
  local id_of_last = members[#members]
  return {redis.call('ZSCORE', order, id_of_last), id_of_last, rows}
end)
