-- Shows one account. KEYS[1]: its hash. ARGV: the record's offset on belfry.accounts, the record.
-- A follower that starts over, or a second one that lags, must not put an older account over a newer.
local shown = redis.call('HGET', KEYS[1], 'offset')
if shown and tonumber(shown) >= tonumber(ARGV[1]) then
  return 0
end
redis.call('HSET', KEYS[1], 'offset', ARGV[1], 'account', ARGV[2])
return 1
