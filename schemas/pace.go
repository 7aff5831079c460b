package schemas

import (
	"slices"

	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// PlatformPace is a platform's part of a campaign's pace, deliveries a second of all instances together, or 0 when the
// campaign has none. The platforms whose deliveries have not all their outcomes share it by their chunks, so that they are
// done together; expanders and lanes must agree on it.
func PlatformPace(c *pb.Campaign, p pb.Platform) float64 {
	own, all := c.GetChunks()[PlatformName(p)], uint32(0)
	for _, of := range Platforms {
		if of == p || !slices.Contains(c.GetSettled(), of) {
			all += c.GetChunks()[PlatformName(of)]
		}
	}
	if own == 0 || all == 0 {
		return c.GetPace().GetPerSecond() // nothing was cut for it yet
	}
	return c.GetPace().GetPerSecond() * float64(own) / float64(all)
}
