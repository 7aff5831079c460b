-- Shows one account. KEYS[1]: its hash. ARGV: the record's offset on belfry.accounts, the record, its partition.
-- A follower that starts over, or a second one that lags, must not put an older account over a newer. An offset of another
-- partition says nothing: what was shown from there was brought here by belfry topics repair.
local shown = redis.call('HMGET', KEYS[1], 'offset', 'partition')
if shown[1] and shown[2] == ARGV[3] and tonumber(shown[1]) >= tonumber(ARGV[1]) then
  return 0
end
redis.call('HSET', KEYS[1], 'offset', ARGV[1], 'account', ARGV[2], 'partition', ARGV[3])
return 1
