package stream

import "time"

// PartitionStats is where one partition of a consumer stands.
type PartitionStats struct {
	Topic     string // without prefix
	Partition int32
	// Committed is the group's offset, -1 before the first commit.
	Committed int64
	// End is the log's high watermark at the last fetch.
	End int64
	// Unfetched is how many offsets of the log lie beyond what was received, without those that were done before.
	Unfetched int64
	// Unfinished are the records received and not done; Held counts those done and not committed too, Bytes theirs.
	Unfinished int
	Held       int
	Bytes      int64
	// Since is when the partition last had nothing unfinished; zero when it has nothing now.
	Since  time.Time
	Paused bool
	// Stopped is why the partition stands still, or nil.
	Stopped error
}

// Stats tells where every partition stands that this member has now.
func (c *Consumer) Stats() []PartitionStats {
	var all []PartitionStats
	for _, p := range c.held() {
		p.mu.Lock()
		all = append(all, PartitionStats{
			Topic: p.topic, Partition: p.partition, Committed: p.base, End: p.highest, Unfetched: p.unfetched(),
			Unfinished: p.w.unfinished(), Held: p.w.held.records, Bytes: p.w.held.bytes,
			Since: p.clear, Paused: p.paused, Stopped: p.halted,
		})
		p.mu.Unlock()
	}
	return all
}

// unfetched counts what is still to be received. p.mu is held.
func (p *partition) unfetched() int64 {
	if p.w.end < 0 {
		return 0 // nobody knows yet where it begins
	}
	n := p.highest - p.w.end
	for _, s := range p.skip {
		n -= max(0, s.to-max(s.from, p.w.end))
	}
	return max(0, n)
}
