package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/belfry/belfry/simulator"
)

func simulateCommand() *cobra.Command {
	o := simulator.Options{}
	var dir, faults string
	var mix map[string]int
	var asJSON bool
	var skew time.Duration
	cmd := &cobra.Command{
		Use:   "simulate",
		Short: "Stand in for APNs, FCM and web push services",
		Long: `Stand in for APNs, FCM with its token server, four web push services and a push server of somebody's own, over TLS and
HTTP/2, until SIGTERM. It is as strict as they are, keeps a receipt of everything it accepts, and can be made slow, sick or
refusing while it runs, for all devices or for some (docs/simulator.md).

With --dir it first writes there all that is needed to send to it: belfry.yaml for belfry serve, credentials,
certificates, and devices for belfry devices import.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dir != "" {
				// First, for --receipts may lie in it.
				if err := os.MkdirAll(dir, 0o700); err != nil {
					return err
				}
			}
			o.Now = func() time.Time { return time.Now().Add(skew) }
			var err error
			if o.Population.Mix, err = mixOf(mix); err != nil {
				return err
			}
			if o.Faults, err = readFaults(faults); err != nil {
				return err
			}
			s, err := simulator.Start(o)
			if err != nil {
				return err
			}
			if dir != "" {
				err = s.WriteFiles(dir)
			}
			if err == nil {
				err = announce(cmd, s, dir, asJSON)
			}
			if err == nil {
				<-cmd.Context().Done()
			}
			return errors.Join(err, s.Close())
		},
	}
	f := cmd.Flags()
	f.StringVar(&dir, "dir", "", "write configuration, credentials and devices to this folder")
	f.StringVar(&o.Listen, "listen", "", "IP address to listen on (default 127.0.0.1)")
	f.StringVar(&o.Host, "host", "", "name or address that clients use (default: that of --listen)")
	f.IntVar(&o.Port, "port", 0, "first of nine ports in a row, ten with ntfy (default: any that are free)")
	f.StringVar(&o.Receipts, "receipts", "", "append receipts to this file, and count what it holds already")
	f.Uint64Var(&o.Population.Seed, "seed", 1, "what keys and devices follow from")
	f.StringSliceVar(&o.Population.Apps, "apps", nil, "apps to know (default demo)")
	f.IntVar(&o.Population.Devices, "devices", 1000, "devices of each app")
	f.Float64Var(&o.Population.Gone, "gone", 0, "share of devices that are gone, 0 to 1")
	f.Float64Var(&o.Population.Misplaced, "misplaced", 0, "share of devices with a wrong environment, sender or key, 0 to 1")
	f.StringToIntVar(&mix, "mix", map[string]int{"apns": 4, "fcm": 4, "webpush": 2}, "weights of apns, fcm, webpush and ntfy among the devices")
	f.StringVar(&faults, "faults", "", "file with faults by name, as JSON, in force from the start")
	f.DurationVar(&skew, "clock-skew", 0, "how far the providers' clock is ahead of this machine's; negative: behind")
	f.BoolVar(&asJSON, "json", false, "print one JSON object with the addresses")
	return cmd
}

func mixOf(weights map[string]int) (m simulator.Mix, err error) {
	into := map[string]*int{"apns": &m.APNs, "fcm": &m.FCM, "webpush": &m.WebPush, "ntfy": &m.Ntfy}
	for name, n := range weights {
		weight, known := into[name]
		if !known {
			return m, fmt.Errorf("--mix: %q is none of apns, fcm, webpush, ntfy", name)
		}
		*weight = n
	}
	return m, nil
}

func readFaults(name string) (map[string]simulator.Fault, error) {
	if name == "" {
		return nil, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	all, err := simulator.ReadFaults(f)
	if err != nil {
		err = fmt.Errorf("%s: %w", name, err)
	}
	return all, errors.Join(err, f.Close())
}

func announce(cmd *cobra.Command, s *simulator.Simulator, dir string, asJSON bool) error {
	w := cmd.OutOrStdout()
	if asJSON {
		return json.NewEncoder(w).Encode(s.Addresses())
	}
	addresses := s.Addresses()
	for _, name := range slices.Sorted(maps.Keys(addresses)) {
		fmt.Fprintf(w, "%-12s  %s\n", name, addresses[name])
	}
	if dir != "" {
		fmt.Fprintf(w, "\nReady. In another terminal: belfry serve --config %s/belfry.yaml\n", dir)
	}
	return nil
}
