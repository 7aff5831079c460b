-- Claim or give up a target. KEYS[1]: the hash that it lies in. ARGV: the target's hash, the device, and registered_at, or
-- "" to give it up. What lies there is registered_at:device of the holder, and after a "/" the same of whom it took it from:
-- so a claim that is made again, because its answer was lost, has the same answer. Returns registered_at:device of the other
-- device, the one that has lost the target or the one that has it since, or "".
local held = redis.call('HGET', KEYS[1], ARGV[1]) or ''
local slash = string.find(held, '/', 1, true)
local holder, from = held, ''
if slash then holder, from = string.sub(held, 1, slash - 1), string.sub(held, slash + 1) end
local colon = string.find(holder, ':', 1, true)
local since, device = -1, ''
if colon then since, device = tonumber(string.sub(holder, 1, colon - 1)), string.sub(holder, colon + 1) end

if ARGV[3] == '' then
  if device == ARGV[2] then redis.call('HDEL', KEYS[1], ARGV[1]) end
  return ''
end
local at = tonumber(ARGV[3])
if device == ARGV[2] then
  if since == at then return from end
  if since < at then redis.call('HSET', KEYS[1], ARGV[1], ARGV[3] .. ':' .. ARGV[2]) end
  return ''
end
if since < at or since == at and device < ARGV[2] then
  local claimed = ARGV[3] .. ':' .. ARGV[2]
  if colon then claimed = claimed .. '/' .. holder end
  redis.call('HSET', KEYS[1], ARGV[1], claimed)
end
return holder
