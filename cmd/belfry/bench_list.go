package main

import (
	"time"

	"github.com/belfry/belfry/bench"
	pb "github.com/belfry/belfry/schemas/belfryv1"
)

// benches are all measurements, each as long or as short as its figures allow.
var benches = []struct {
	name, short string
	of          func(quick bool) bench.Bench
}{
	{"wire", "Requests over HTTP/2, against h2load and apns2", wireBench},
	{"lane-apns", "From Kafka to APNs to the outcome, against the wire alone", laneBench(pb.Platform_PLATFORM_APNS)},
	{"lane-fcm", "From Kafka to FCM to the outcome, against the wire alone and firebase", laneBench(pb.Platform_PLATFORM_FCM)},
	{"lane-webpush", "From Kafka to a push service to the outcome, against P-256 alone and webpush-go", laneBench(pb.Platform_PLATFORM_WEBPUSH)},
	{"intake", "Devices through the bulk API, against a franz-go producer alone", intakeBench},
	{"fanout", "From the registry to committed deliveries, against a bare Kafka producer", fanoutBench},
	{"end-to-end", "From a campaign's launch to its last outcome, against its slowest stage alone", endToEndBench},
	{"latency", "From API to provider, idle and during campaigns, against one HTTP hop and one produce", latencyBench},
	{"growth", "Time and memory by number of devices, against a line", growthBench},
	{"scale", "CPU a push with two and four processes, against one", scaleBench},
	{"isolation", "A sick platform, web push service or app, and the others' throughput and delay", isolationBench},
	{"urgent", "A blast, and the time from API to provider of a transactional message", urgentBench},
	{"fairness", "A big campaign, and the time of a small one behind it", fairnessBench},
}

func wireBench(quick bool) bench.Bench {
	if quick {
		return bench.Wire{Rounds: 4, For: time.Second}
	}
	return bench.Wire{Rounds: 10, For: 3 * time.Second}
}

func laneBench(p pb.Platform) func(bool) bench.Bench {
	return func(quick bool) bench.Bench {
		if quick {
			return bench.Lane{Platform: p, Rounds: 2, For: 2 * time.Second, Warm: 500 * time.Millisecond}
		}
		return bench.Lane{Platform: p, Rounds: 6, For: 5 * time.Second, Warm: 2 * time.Second}
	}
}

func intakeBench(quick bool) bench.Bench {
	if quick {
		return bench.Intake{Rounds: 4, Devices: 150_000}
	}
	return bench.Intake{Rounds: 10, Devices: 1_000_000}
}

func fanoutBench(quick bool) bench.Bench {
	if quick {
		return bench.Fanout{Devices: 100_000, Rounds: 2}
	}
	return bench.Fanout{Devices: 1_000_000, Rounds: 6}
}

func endToEndBench(quick bool) bench.Bench {
	if quick {
		return bench.EndToEnd{Devices: 50_000, Rounds: 1}
	}
	return bench.EndToEnd{Devices: 1_000_000, Rounds: 4}
}

func latencyBench(quick bool) bench.Bench {
	if quick {
		return bench.Latency{Devices: 20_000, Campaigns: 10, Rounds: 2, Calls: 100, Every: 10 * time.Millisecond}
	}
	return bench.Latency{Devices: 200_000, Campaigns: 20, Rounds: 6, Calls: 500, Every: 10 * time.Millisecond}
}

func growthBench(quick bool) bench.Bench {
	if quick {
		return bench.Growth{Sizes: []int{1000, 10_000, 30_000}, Rounds: 2}
	}
	return bench.Growth{Sizes: []int{10_000, 100_000, 1_000_000, 3_000_000}, Rounds: 2}
}

func scaleBench(quick bool) bench.Bench {
	if quick {
		return bench.Scale{Lane: bench.Lane{Platform: pb.Platform_PLATFORM_APNS, Rounds: 1, For: time.Second, Warm: 500 * time.Millisecond}}
	}
	return bench.Scale{Lane: bench.Lane{Platform: pb.Platform_PLATFORM_APNS, Rounds: 4, For: 5 * time.Second, Warm: 3 * time.Second}}
}

func isolationBench(quick bool) bench.Bench {
	if quick {
		return bench.Staged{Scene: bench.Isolation{
			Pairs: []string{"webpush-blackhole", "half-429"}, Rounds: 2,
			Ticks: 5, Paced: 100, Bursts: 1, Burst: 1000,
		}}
	}
	return bench.Staged{Scene: bench.Isolation{Rounds: 3, Ticks: 30, Paced: 100, Bursts: 3, Burst: 1000, Lead: 1500 * time.Millisecond}}
}

func urgentBench(quick bool) bench.Bench {
	if quick {
		return bench.Urgent{Devices: 10_000, Campaigns: 8, Rounds: 1, Calls: 80, Every: 10 * time.Millisecond}
	}
	return bench.Urgent{Devices: 1_000_000, Campaigns: 1, Rounds: 6, Calls: 500, Every: 20 * time.Millisecond}
}

func fairnessBench(quick bool) bench.Bench {
	if quick {
		return bench.Staged{Scene: bench.Fairness{Devices: 100_000, Small: 1000, Rounds: 1}}
	}
	return bench.Staged{Scene: bench.Fairness{Devices: 1_000_000, Small: 1000, Rounds: 3}}
}
