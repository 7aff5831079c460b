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
	var dir string
	var asJSON bool
	var skew time.Duration
	cmd := &cobra.Command{
		Use:   "simulate",
		Short: "Stand in for APNs, FCM and four web push services",
		Long: `Stand in for APNs, FCM with its token server, and four web push services, over TLS and HTTP/2, until SIGTERM. It is as
strict as they are, keeps a receipt of everything it accepts, and can be made slow, sick or refusing while it runs
(docs/simulator.md).

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
	f.IntVar(&o.Port, "port", 0, "first of nine ports in a row (default: any that are free)")
	f.StringVar(&o.Receipts, "receipts", "", "append receipts to this file, and count what it holds already")
	f.Uint64Var(&o.Population.Seed, "seed", 1, "what keys and devices follow from")
	f.StringSliceVar(&o.Population.Apps, "apps", nil, "apps to know (default demo)")
	f.IntVar(&o.Population.Devices, "devices", 1000, "devices of each app")
	f.Float64Var(&o.Population.Gone, "gone", 0, "share of devices that are gone, 0 to 1")
	f.Float64Var(&o.Population.Misplaced, "misplaced", 0, "share of devices with a wrong environment, sender or key, 0 to 1")
	f.DurationVar(&skew, "clock-skew", 0, "how far the providers' clock is ahead of this machine's; negative: behind")
	f.BoolVar(&asJSON, "json", false, "print one JSON object with the addresses")
	return cmd
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
