-- Account.take and Account.give_back of account.py, for the state of one client in the hash
-- KEYS[1]; see there for why. ARGV: give_back (1 or 0), the fields of a Charge, now (0: this
-- server's time). Times are microseconds: integers below 2^53.
local SECOND = 1000000
local DAY = 86400 * SECOND
local LONGEST = DAY
local LARGEST_DEPTH = 1000 * 1000 * SECOND
local FIELDS = {'at', 'requests', 'rows', 'day', 'rows_today'}

local key, give_back = KEYS[1], ARGV[1] == '1'
local requests, requests_depth = tonumber(ARGV[2]), tonumber(ARGV[3])
local rows, rows_depth = tonumber(ARGV[4]), tonumber(ARGV[5])
local rows_today, rows_per_day = tonumber(ARGV[6]), tonumber(ARGV[7])
local now = tonumber(ARGV[8])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * SECOND + time[2]
end

-- What is no state of ours is as if there were none.
local state, found = {}, {}
if redis.call('TYPE', key).ok == 'hash' then found = redis.call('HMGET', key, unpack(FIELDS))
else redis.call('DEL', key) end
for number, name in ipairs(FIELDS) do
  local value = found[number]
  local known = value and #value <= 16 and string.match(value, '^%d+$')
  state[name] = known and tonumber(value) or 0
end

-- Nor is a debt that no limit of ours can have made.
for _, name in ipairs({'requests', 'rows'}) do
  if state[name] > LARGEST_DEPTH + LONGEST then state[name] = 0 end
end

local passed = math.max(0, now - state.at)
state.requests = math.max(0, state.requests - passed)
state.rows = math.max(0, state.rows - passed)
local day = math.floor(now / DAY)
if state.day ~= day then state.day, state.rows_today = day, 0 end
state.at = now

local function fits(owed, cost, depth)
  if cost == 0 then return true end
  if cost <= depth then return owed + cost <= depth end
  return owed <= depth
end

local function add(owed, cost, depth)
  return math.max(owed, math.min(owed + cost, depth + LONGEST))
end

local taken = 0
if give_back then
  state.requests = math.max(0, state.requests - requests)
  state.rows = math.max(0, state.rows - rows)
  state.rows_today = math.max(0, state.rows_today - rows_today)
elseif fits(state.requests, requests, requests_depth) and fits(state.rows, rows, rows_depth)
    and (rows_today == 0 or state.rows_today + rows_today <= rows_per_day) then
  taken = 1
  state.requests = add(state.requests, requests, requests_depth)
  state.rows = add(state.rows, rows, rows_depth)
  state.rows_today = state.rows_today + rows_today
end

local last = math.max(state.requests, state.rows)
if state.rows_today > 0 then last = math.max(last, DAY - now % DAY) end
if last == 0 then redis.call('DEL', key)
else
  local kept = {}
  for _, name in ipairs(FIELDS) do
    kept[#kept + 1] = name
    kept[#kept + 1] = string.format('%.0f', state[name])
  end
  redis.call('HSET', key, unpack(kept))
  redis.call('PEXPIRE', key, math.ceil((last + SECOND) / 1000))
end
return {taken, state.at, state.requests, state.rows, state.day, state.rows_today}
