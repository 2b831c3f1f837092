-- Every change of the ledger is one run of this script. Nothing else writes its keys.
-- KEYS[1]: any key of the ledger; on a cluster it routes the call. All keys share the hash tag in the prefix.
-- ARGV: prefix, operation, "now" in ms (empty: Redis' own clock), then the arguments of the operation.
--
-- Amounts are passed as decimal strings. HINCRBY adds in 64 bits. Numbers that Lua itself adds and compares stay
-- below 2^53. The sum of two of them may exceed 2^53, but rounding cannot make such a sum fit a quota.

local prefix, operation = ARGV[1], ARGV[2]
local MAX_AMOUNT = 9000000000000000
local MINUTE = 60000
local DAY = 86400000

local function key(name) return prefix .. ':' .. name end

local function whole(number) return string.format('%.0f', number) end

local function number_at(name, field)
  return tonumber(redis.call('HGET', name, field) or '0')
end

local now
if ARGV[3] ~= '' then
  now = tonumber(ARGV[3])
else
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local LEASES, UNWRITTEN, SETTLED_AT = key('leases'), key('unwritten'), key('settled_at')
local COUNTED, EPOCH, REBUILDING = key('counted'), key('epoch'), key('rebuilding')

local function hold_key(id) return key('hold:' .. id) end
local function reaped_key(id) return key('reaped:' .. id) end
local function minute_key(minute, scope) return key('tokens:' .. whole(minute) .. ':' .. scope) end

-- A check is {kind, counter key, amount, quota, resets_at_ms or ''}. The counter key of money is "<period>|<scope>",
-- that of tokens and slots is the scope.

local function keep_until(name, resets_at)
  -- One day longer than the period, for calls that last beyond its end and for clocks that jump.
  if resets_at ~= '' then
    redis.call('PEXPIRE', name, whole(math.max(0, tonumber(resets_at) - now) + DAY))
  end
end

-- The window has two buckets. The previous minute counts in proportion to its part that lies in the last 60 s.
local function tokens_used(counter_key, room)
  local minute = math.floor(now / MINUTE)
  local passed = (now - minute * MINUTE) / MINUTE
  local current = tonumber(redis.call('GET', minute_key(minute, counter_key)) or '0')
  local before = tonumber(redis.call('GET', minute_key(minute - 1, counter_key)) or '0')
  local wait
  if current <= room then
    wait = before > 0 and (1 - (room - current) / before - passed) or 0
  else
    wait = 1 - passed + (1 - room / current)
  end
  return current + math.ceil(before * (1 - passed)), math.max(0, math.ceil(wait * MINUTE))
end

-- Returns how much of the check's quota is taken, and in how many ms its amount may fit (-1: time alone never helps).
local function used(check, room)
  local kind, counter_key = check[1], check[2]
  if kind == 'tokens' then return tokens_used(counter_key, math.max(0, room)) end
  if kind == 'slots' then return redis.call('SCARD', key('slots:' .. counter_key)), 1000 end
  local money = key('money:' .. counter_key)
  local wait = check[5] == '' and -1 or math.max(0, tonumber(check[5]) - now)
  local values = redis.call('HMGET', money, 'spent', 'held')
  return tonumber(values[1] or '0') + tonumber(values[2] or '0'), wait
end

local function apply(id, check)
  local kind, counter_key, amount = check[1], check[2], check[3]
  if kind == 'money' then
    local money = key('money:' .. counter_key)
    redis.call('HINCRBY', money, 'held', amount)
    keep_until(money, check[5])
  elseif kind == 'tokens' then
    local bucket = minute_key(math.floor(now / MINUTE), counter_key)
    redis.call('INCRBY', bucket, amount)
    redis.call('PEXPIRE', bucket, 3 * MINUTE)
  else
    redis.call('SADD', key('slots:' .. counter_key), id)
  end
end

local function settled(id)
  return redis.call('HEXISTS', UNWRITTEN, id) == 1 or redis.call('HEXISTS', COUNTED, id) == 1
    or redis.call('EXISTS', reaped_key(id)) == 1
end

-- Renewals and reapers run every few seconds. If none ran for half a lease, or if time went backwards, the clock has
-- jumped or Redis was unavailable. Then the leases do not show which owners live, so every call gets a full new lease.
local function handle_clock_jump(lease, regularly)
  local name = key('clock')
  local last = tonumber(redis.call('GET', name) or '0')
  local jumped = now - last > lease / 2 or now - last < -1000
  if jumped then
    local live = redis.call('ZRANGE', LEASES, 0, -1)
    for _, id in ipairs(live) do redis.call('ZADD', LEASES, whole(now + lease), id) end
  end
  if jumped or regularly then redis.call('SET', name, whole(now)) end
end

-- Arguments: id, worker, lease ms, record, checks, mode. The mode is "check"; "open" admits calls whose money cannot be
-- checked; "force" admits all.
-- Returns {1, what is left of each check}, {0, index of the rejecting check, what is left, wait in ms}, or {2} if the
-- spent money is not known yet.
local function hold()
  local id, worker, lease, record, mode = ARGV[4], ARGV[5], tonumber(ARGV[6]), ARGV[7], ARGV[9]
  local name = hold_key(id)
  if redis.call('EXISTS', name) == 1 or settled(id) then return {1} end
  local known = redis.call('EXISTS', EPOCH) == 1
  local checks = cjson.decode(ARGV[8])
  local reply = {1}
  for index, check in ipairs(checks) do
    local amount, quota = tonumber(check[3]), tonumber(check[4])
    local taken, wait = used(check, quota - amount)
    local unknown = check[1] == 'money' and not known
    if mode ~= 'force' and (amount > quota or (not unknown and taken + amount > quota)) then
      return {0, index, whole(math.max(0, quota - taken)), whole(wait)}
    end
    if unknown and mode == 'check' then return {2} end
    reply[index + 1] = whole(math.max(0, quota - taken - amount))
  end
  for _, check in ipairs(checks) do apply(id, check) end
  handle_clock_jump(lease, false)  -- otherwise a jump there and back would leave a lease with a time of the jump
  redis.call('HSET', name, 'worker', worker, 'started', whole(now), 'record', record, 'checks', ARGV[8], 'seen', '0')
  redis.call('ZADD', LEASES, whole(now + lease), id)
  return reply
end

-- If tokens is nil, the held tokens stay counted.
local function release_tokens(check, started, tokens)
  if not tokens then return end
  local bucket = minute_key(math.floor(started / MINUTE), check[2])
  local held = redis.call('GET', bucket)
  if held then
    local left = math.max(0, math.min(MAX_AMOUNT, tonumber(held) - tonumber(check[3]) + tokens))
    redis.call('SET', bucket, whole(left), 'KEEPTTL')
  end
end

-- Releases all that the call holds.
local function release(id, checks, started, tokens)
  for _, check in ipairs(checks) do
    local kind, counter_key = check[1], check[2]
    if kind == 'money' then
      local money = key('money:' .. counter_key)
      local amount = check[3] == '0' and '0' or '-' .. check[3]  -- Redis does not accept "-0" as an integer
      if redis.call('HINCRBY', money, 'held', amount) < 0 then redis.call('HSET', money, 'held', '0') end
    elseif kind == 'tokens' then
      release_tokens(check, started, tokens)
    else
      redis.call('SREM', key('slots:' .. counter_key), id)
    end
  end
  redis.call('DEL', hold_key(id))
  redis.call('ZREM', LEASES, id)
end

-- Releases a call without settling it: its tokens stay counted, and nothing is spent.
local function drop(id)
  local hold = redis.call('HMGET', hold_key(id), 'checks', 'started')
  if hold[1] then release(id, cjson.decode(hold[1]), tonumber(hold[2]), nil) end
end

-- exempt: a JSON list of the counter keys that the call does not count against, or ''.
local function spend(id, checks, cost, exempt)
  local charged, exempt_keys = {}, {}
  if exempt ~= '' then
    for _, counter_key in ipairs(cjson.decode(exempt)) do exempt_keys[counter_key] = true end
  end
  for _, check in ipairs(checks) do
    if check[1] == 'money' and not exempt_keys[check[2]] then
      local money = key('money:' .. check[2])
      if number_at(money, 'spent') + tonumber(cost) >= MAX_AMOUNT then
        redis.call('HSET', money, 'spent', whole(MAX_AMOUNT))
      else
        redis.call('HINCRBY', money, 'spent', cost)
      end
      keep_until(money, check[5])
      charged[#charged + 1] = check[2]
    end
  end
  if #charged > 0 and cost ~= '0' then redis.call('HSET', COUNTED, id, cjson.encode({cost, charged})) end
end

-- Returns 1 if this settled the call, 0 if it was settled before or no longer belongs to this worker.
local function settle_one(worker, id, cost, tokens, record, claimed, known_checks, exempt)
  local hold = redis.call('HMGET', hold_key(id), 'checks', 'started', 'claim')
  local checks
  if hold[1] then
    if claimed ~= '' and hold[3] ~= worker then return 0 end
    checks = cjson.decode(hold[1])
    release(id, checks, tonumber(hold[2]), tonumber(tokens))
  else
    -- Only the call's own worker passes its checks, and only once. If nobody settled the call, Redis never knew of it
    -- or has lost it.
    if known_checks == '' or settled(id) then return 0 end
    checks = cjson.decode(known_checks)
    for _, check in ipairs(checks) do
      if check[1] == 'tokens' then apply(id, {'tokens', check[2], tokens}) end
    end
  end
  spend(id, checks, cost, exempt)
  if record ~= '' then
    redis.call('HSET', UNWRITTEN, id, record)
    redis.call('ZADD', SETTLED_AT, whole(now), id)
  end
  if claimed ~= '' then redis.call('SET', reaped_key(id), '1', 'PX', DAY) end
  return 1
end

-- Arguments: worker, then for each call: id, cost, tokens, record, claimed or '', checks or '', exempt or ''.
local function settle()
  local replies = {}
  for at = 5, #ARGV, 7 do
    replies[#replies + 1] = settle_one(
      ARGV[4], ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5],
      ARGV[at + 6])
  end
  return replies
end

-- A server that was restarted may have old counters, and a replica that took over may lack the last writes. Then the
-- counters must be rebuilt. Only an append-only file has every write. Without the right to INFO this is skipped.
local function handle_restart()
  local function info(section, pattern)
    local text = redis.pcall('INFO', section)
    return type(text) == 'string' and string.match(text, pattern)
  end
  local run = info('server', 'run_id:(%x+)') or ''
  local known = redis.call('GET', key('run'))
  if known == run then return 1 end
  redis.call('SET', key('run'), run)
  local never_a_replica = info('replication', 'master_replid2:0+%s')
  if known and not (never_a_replica and info('persistence', 'aof_enabled:1')) then
    redis.call('DEL', EPOCH, REBUILDING)
  end
  return 1
end

-- Arguments: worker, lease ms, then id and seen of each call. Returns the ids that are not held.
local function renew()
  local lease = tonumber(ARGV[5])
  handle_clock_jump(lease, true)
  local reply = {}
  for at = 6, #ARGV, 2 do
    local id, name = ARGV[at], hold_key(ARGV[at])
    if redis.call('EXISTS', name) == 1 then
      redis.call('ZADD', LEASES, whole(now + lease), id)
      redis.call('HDEL', name, 'claim')
      if tonumber(ARGV[at + 1]) > number_at(name, 'seen') then redis.call('HSET', name, 'seen', ARGV[at + 1]) end
    else
      reply[#reply + 1] = id
    end
  end
  return reply
end

-- Arguments: worker, lease ms, limit. Returns id, record, seen, started of each hold that this worker must now settle.
local function claim()
  local worker, lease = ARGV[4], tonumber(ARGV[5])
  handle_restart()
  handle_clock_jump(lease, true)
  local reply = {}
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', LEASES, '-inf', whole(now), 'LIMIT', 0, ARGV[6])) do
    local hold = redis.call('HMGET', hold_key(id), 'record', 'seen', 'started')
    if hold[1] then
      redis.call('ZADD', LEASES, whole(now + lease), id)
      redis.call('HSET', hold_key(id), 'claim', worker)
      for _, value in ipairs({id, hold[1], hold[2], hold[3]}) do reply[#reply + 1] = value end
    else
      redis.call('ZREM', LEASES, id)
    end
  end
  return reply
end

-- Arguments: "1" if the log has costs that are not counted here, then the ids of calls to release. Counts no cost.
local function forget()
  for at = 5, #ARGV do drop(ARGV[at]) end
  -- A running rebuild may have read the log too early, so it must start again.
  if ARGV[4] == '1' then redis.call('DEL', EPOCH, REBUILDING) end
  return 1
end

-- Arguments: the ids of calls whose rows are durable.
local function written()
  -- While the counters are rebuilt it is unknown which rows the log's snapshot has, so COUNTED keeps the calls.
  local building = redis.call('EXISTS', REBUILDING) == 1
  for at = 4, #ARGV do
    redis.call('HDEL', UNWRITTEN, ARGV[at])
    redis.call('ZREM', SETTLED_AT, ARGV[at])
    if not building then redis.call('HDEL', COUNTED, ARGV[at]) end
  end
  return 1
end

-- Arguments: minimum age in ms, limit for each of the two kinds. Returns id, record of each, oldest first.
local function unwritten()
  local reply = {}
  local function find(from, till)
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', SETTLED_AT, from, till, 'LIMIT', 0, ARGV[5])) do
      reply[#reply + 1] = id
      reply[#reply + 1] = redis.call('HGET', UNWRITTEN, id) or ''
    end
  end
  find('-inf', whole(now - tonumber(ARGV[4])))
  find(whole(now + 1000), '+inf')  -- settled before the clock was set back
  return reply
end

-- Arguments: epoch, seconds.
local function begin()
  return redis.call('SET', REBUILDING, ARGV[4], 'NX', 'EX', ARGV[5]) and 1 or 0
end

-- Returns the calls whose rows a snapshot of the log may have: those that have a cost, and those that are still held,
-- because they may end without Redis.
local function counted()
  local ids = redis.call('HKEYS', COUNTED)
  for _, id in ipairs(redis.call('ZRANGE', LEASES, 0, -1)) do ids[#ids + 1] = id end
  return ids
end

-- Arguments: epoch, number of counters, then counter key, spent, resets_at_ms or '' of each, then the ids of the calls
-- in the log's snapshot.
local function rebuild()
  if redis.call('GET', REBUILDING) ~= ARGV[4] then return 0 end
  local last = 5 + 3 * tonumber(ARGV[5])
  local included, more = {}, {}
  for at = last + 1, #ARGV do
    local id = ARGV[at]
    included[id] = true
    -- A call that has its row is over. A reaper must not count it again.
    drop(id)
  end
  local counted = redis.call('HGETALL', COUNTED)
  for at = 1, #counted, 2 do
    local id, entry = counted[at], cjson.decode(counted[at + 1])
    if not included[id] then
      for _, counter_key in ipairs(entry[2]) do
        more[counter_key] = (more[counter_key] or 0) + tonumber(entry[1])
      end
    end
    if redis.call('HEXISTS', UNWRITTEN, id) == 0 then redis.call('HDEL', COUNTED, id) end
  end
  for at = 6, last, 3 do
    local counter_key = ARGV[at]
    local money = key('money:' .. counter_key)
    redis.call('HSET', money, 'spent', whole(math.min(MAX_AMOUNT, tonumber(ARGV[at + 1]) + (more[counter_key] or 0))))
    keep_until(money, ARGV[at + 2])
  end
  redis.call('SET', EPOCH, ARGV[4])
  redis.call('DEL', REBUILDING)
  return 1
end

local function balance()
  local values = redis.call('HMGET', key('money:' .. ARGV[4]), 'spent', 'held')
  return {values[1] or '0', values[2] or '0'}
end

-- Arguments: cursor. Returns the next cursor, then counter keys of money.
local function money_keys()
  local head = key('money:')
  local pattern = string.gsub(head, '[%[%]*?\\]', '\\%0') .. '*'
  local found = redis.call('SCAN', ARGV[4], 'MATCH', pattern, 'COUNT', '1000')
  local reply = {found[1]}
  for _, name in ipairs(found[2]) do reply[#reply + 1] = string.sub(name, #head + 1) end
  return reply
end

if operation == 'hold' then return hold() end
if operation == 'settle' then return settle() end
if operation == 'wake' then return handle_restart() end
if operation == 'renew' then return renew() end
if operation == 'claim' then return claim() end
if operation == 'forget' then return forget() end
if operation == 'written' then return written() end
if operation == 'unwritten' then return unwritten() end
if operation == 'begin' then return begin() end
if operation == 'money_keys' then return money_keys() end
if operation == 'rebuild' then return rebuild() end
if operation == 'balance' then return balance() end
if operation == 'counted' then return counted() end
if operation == 'epoch' then return redis.call('GET', EPOCH) or '' end
return redis.error_reply('ledger: no such operation')
