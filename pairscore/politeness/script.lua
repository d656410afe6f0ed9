-- HostBudget.ask of budget.py, for the state of one host in the hash KEYS[1]; see there for why.
-- ARGV: worker, wanted, in_flight (-1: nothing is said of it), failures, answered, close, interval,
-- connections, lease, now (0: this server's time). Times are microseconds: integers below 2^53.
local SECOND = 1000000
local LONGEST, LONGEST_DELAY = 86400 * SECOND, 60 * SECOND
local AHEAD, BURST, WAITING, POLL, TURN = SECOND, SECOND / 4, 5 * SECOND, SECOND / 20, SECOND / 2
local FAILURES, LEAST_PAUSE, MOST_PAUSE = 5, 10 * SECOND, 600 * SECOND
local FIELDS = {'due', 'closed_until', 'failures', 'failed_at', 'reopens', 'pause',
                'probe_until'}

local key, worker = KEYS[1], ARGV[1]
local wanted, in_flight, failures = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local answered, close = ARGV[5] == '1', tonumber(ARGV[6])
local interval, connections, lease = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local now = tonumber(ARGV[10])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * SECOND + time[2]
end

-- What is no state of ours is as if there were none.
local state, shares, fields = {prober = '', failed_by = ''}, {}, {}
for _, name in ipairs(FIELDS) do state[name] = 0 end
if redis.call('TYPE', key).ok == 'hash' then fields = redis.call('HGETALL', key)
else redis.call('DEL', key) end
for number = 1, #fields, 2 do
  local name, value = fields[number], fields[number + 1]
  if name == 'prober' or name == 'failed_by' then state[name] = value
  elseif state[name] then state[name] = string.match(value, '^%d+$') and tonumber(value) or 0
  elseif string.sub(name, 1, 2) == 'w:' then
    local held, wants, granted, seen = string.match(value, '^(%d+) ([01]) (%d+) (%d+)$')
    if held then
      shares[string.sub(name, 3)] = {held = tonumber(held), wants = wants == '1',
                                     granted = tonumber(granted), seen = tonumber(seen)}
    end
  end
end

-- Nor is what no clock of ours can have written.
state.due = math.min(state.due, now + AHEAD + math.max(interval, LONGEST_DELAY))
state.closed_until = math.min(state.closed_until, now + LONGEST)
state.failed_at = math.min(state.failed_at, now)
state.reopens = math.min(state.reopens, now + MOST_PAUSE)
state.pause = math.min(state.pause, MOST_PAUSE)
state.probe_until = math.min(state.probe_until, now + lease)

if failures > 0 then state.failed_at = now end
if failures > 0 and state.reopens == 0 then
  state.failures = state.failures + failures
  if state.failures >= FAILURES then state.pause, state.reopens = LEAST_PAUSE, now + LEAST_PAUSE end
elseif failures > 0 and state.prober == worker then
  state.pause = math.min(2 * state.pause, MOST_PAUSE)
  state.reopens, state.failed_by, state.prober, state.probe_until = now + state.pause, worker, '', 0
end
if answered then
  state.failures, state.reopens, state.pause, state.probe_until = 0, 0, 0, 0
  state.prober, state.failed_by = '', ''
end
if close > 0 then
  state.closed_until = math.max(state.closed_until, now + math.min(close, LONGEST))
end

local gone = {}
for name, share in pairs(shares) do
  if share.seen + lease <= now or share.seen > now then
    shares[name] = nil
    gone[#gone + 1] = 'w:' .. name
  end
end

local grant = {permits = 0, first = 0, interval = 0, again = 0, closed = 0, unreachable = 0,
               troubled = (state.failures > 0 or state.reopens > 0) and 1 or 0}
local mine

local function probe()
  grant.troubled = 1
  if state.reopens > now then
    grant.closed, grant.unreachable = state.reopens - now, 1
    return
  end
  grant.again = SECOND
  local under_way = state.probe_until > now
  if under_way and state.prober ~= '' and state.prober ~= worker then return end
  if under_way and state.prober == worker and in_flight > 0 then return end
  if state.failed_by == worker then
    for name, share in pairs(shares) do
      if name ~= worker and share.wants and share.seen + WAITING > now then return end
    end
  end
  state.prober, state.probe_until = worker, now + lease
  mine.held, mine.granted = in_flight + 1, now
  grant.permits = 1
end

local function permit()
  local held, others, waiting, ahead = 0, 0, 0, 0
  for name, share in pairs(shares) do
    if name ~= worker then
      others, held = others + 1, held + share.held
      if share.wants and share.seen + WAITING > now then
        waiting = waiting + 1
        if share.held == 0 and share.granted + TURN < mine.granted then ahead = ahead + 1 end
      end
    end
  end
  local free = connections - held - in_flight - ahead
  local fair = math.max(1, math.floor(connections / (1 + waiting))) - in_flight
  local permits = math.max(0, math.min(wanted, free, fair))
  grant.again = others > 0 and POLL * (1 + waiting) or SECOND
  if interval > 0 and permits > 0 then
    local burst = math.max(1, math.floor(BURST / interval))
    local due = math.max(state.due, now - (burst - 1) * interval)
    local slots = 0
    if due <= now + AHEAD then slots = math.floor((now + AHEAD - due) / interval) + 1 end
    permits = math.min(permits, slots)
    if permits == 0 then grant.again = due - now - AHEAD + interval end
    grant.first = due - now
    state.due = due + permits * interval
  end
  if permits > 0 then mine.held, mine.granted = in_flight + permits, now end
  if permits >= wanted then grant.again = 0 end
  grant.permits, grant.interval = permits, interval
end

if in_flight >= 0 then
  mine = shares[worker] or {granted = 0}
  mine.held, mine.wants, mine.seen = in_flight, wanted > 0, now
  shares[worker] = nil
  if mine.held > 0 or mine.wants then shares[worker] = mine else gone[#gone + 1] = 'w:' .. worker end
  if wanted == 0 then grant.permits = 0
  elseif state.closed_until > now then grant.closed = state.closed_until - now
  elseif state.reopens > 0 then probe()
  else permit() end
end

local kept = {'prober', state.prober, 'failed_by', state.failed_by}
for _, name in ipairs(FIELDS) do
  kept[#kept + 1] = name
  kept[#kept + 1] = string.format('%.0f', state[name])
end
local last = math.max(state.due + BURST, state.closed_until)
if state.failures > 0 then last = math.max(last, state.failed_at + 2 * MOST_PAUSE) end
for name, share in pairs(shares) do
  kept[#kept + 1] = 'w:' .. name
  kept[#kept + 1] = string.format('%.0f %d %.0f %.0f', share.held, share.wants and 1 or 0,
                                  share.granted, share.seen)
  last = math.max(last, share.seen + lease)
end
if last < now then redis.call('DEL', key)
else
  if #gone > 0 then redis.call('HDEL', key, unpack(gone)) end
  redis.call('HSET', key, unpack(kept))
  redis.call('PEXPIRE', key, math.ceil((last - now + SECOND) / 1000))
end
return {grant.permits, grant.first, grant.interval, grant.again, grant.closed, grant.unreachable,
        grant.troubled}
