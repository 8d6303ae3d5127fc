package redisstore

import "fmt"

// A script is what Redis runs atomically on the hash at KEYS[1], which has these fields:
//
//	version, data, expiry   the record, and when it ends
//	owner, lease            who holds the lease, and when it ends
//	note, cooldown          the note given to Abort, and when the cooldown ends
//
// Times are milliseconds since 1970 by Redis' clock. A record, lease or cooldown whose
// time is over or missing doesn't exist. The hash itself expires with the last of them.
//
// A script decides everything before it writes anything, and a Redis that is full or
// read-only refuses already the first write. So an error leaves the hash as it was.
type script struct {
	name   string
	source string
	// sha1 is the digest of source, by which Redis identifies the script. It is a
	// constant because redis.NewScript computes it, and a program in FIPS 140-only mode
	// panics when it computes SHA-1.
	sha1 string
}

// unexpected returns the error for a reply that the script never makes.
func (s *script) unexpected(reply any) error {
	return fmt.Errorf("oauth2: redisstore: %s: a reply of type %T can't come from the script; check for a proxy between this client and Redis", s.name, reply)
}

const prelude = `
local function get(...) return unpack(redis.call('HMGET', KEYS[1], ...)) end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function left(ends) return math.max((tonumber(ends) or 0) - now, 0) end
local version, expiry, owner, leased, cooling = get('version', 'expiry', 'owner', 'lease', 'cooldown')
local record, lease, cooldown = left(expiry), left(leased), left(cooling)
local function expire(...) redis.call('PEXPIRE', KEYS[1], math.max(...)) end
`

// acquire takes the owner, the stale version, and the duration of the lease. It returns
// texts of at most 128 KiB in all, so that a replica never reads a huge one that somebody
// else has put there. It doesn't use HSTRLEN, for which existing users have no
// permission.
var acquire = script{name: "acquire", source: prelude + `
local function found(state, time, first, second)
	local size = #(first or '') + #(second or '')
	if size > 131072 then return {'large', size, '', ''} end
	return {state, time, first, second}
end
if record > 0 and version ~= ARGV[2] then return found('hit', record, version, (get('data'))) end
if lease > 0 and owner ~= ARGV[1] then return found('wait', lease, owner, '') end
if lease == 0 and cooldown > 0 then return found('cooling', cooldown, (get('note')), '') end
lease = tonumber(ARGV[3])
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'lease', now + lease)
expire(record, lease)
return {'lead', lease, '', ''}
`, sha1: "ead55b75ee2e8518e52cccc5d71d788f725de823"}

// renew takes the owner and the duration of the lease.
var renew = script{name: "renew", source: prelude + `
if lease == 0 or owner ~= ARGV[1] then return 0 end
lease = tonumber(ARGV[2])
redis.call('HSET', KEYS[1], 'lease', now + lease)
expire(record, lease)
return 1
`, sha1: "309ef668f6e8e0a2c472332aa47cee4bbae0b32b"}

// publish takes the owner, the duration of the record, its version and its data.
var publish = script{name: "publish", source: prelude + `
if lease == 0 or owner ~= ARGV[1] then return 0 end
record = tonumber(ARGV[2])
redis.call('HSET', KEYS[1], 'version', ARGV[3], 'data', ARGV[4], 'expiry', now + record, 'lease', 0, 'cooldown', 0)
expire(record)
return 1
`, sha1: "38e563dc9171e322e8c97fd66bd2aa828fae2279"}

// abort takes the owner, the duration of the cooldown, and the note.
var abort = script{name: "abort", source: prelude + `
if lease == 0 or owner ~= ARGV[1] then return 0 end
cooldown = tonumber(ARGV[2])
redis.call('HSET', KEYS[1], 'note', ARGV[3], 'cooldown', now + cooldown, 'lease', 0)
expire(record, cooldown)
return 1
`, sha1: "eb37a002cd78d3bc30a60aad2e93118319c772ca"}

// invalidate takes the version. During a cooldown there is no lease, so only the cooldown
// stays. Without a cooldown nothing stays, and the key expires at once: even a Redis that
// is full allows that.
var invalidate = script{name: "invalidate", source: prelude + `
if record == 0 or version ~= ARGV[1] then return 0 end
if cooldown > 0 then redis.call('HSET', KEYS[1], 'data', '', 'expiry', 0) end
expire(cooldown)
return 1
`, sha1: "5c2bf9c1c83864c23a433e8d6b388b5db64a5572"}
