package main

import (
	"net/http"

	"github.com/spf13/cobra"

	"github.com/belfry/belfry/producer"
)

func devicesCommand(c *client) *cobra.Command {
	cmd := &cobra.Command{Use: "devices", Short: "Register, look up and remove devices"}
	var asJSON bool
	get := &cobra.Command{
		Use:   "get ID",
		Short: "Show a device as it is registered, its target masked",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var d producer.ShownDevice
			if err := c.call(cmd.Context(), http.MethodGet, pathOf("devices", args[0]), nil, &d); err != nil {
				return err
			}
			return show(cmd, d, asJSON)
		},
	}
	jsonFlag(get, &asJSON)
	rm := &cobra.Command{
		Use:   "rm ID...",
		Short: "Remove devices",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, id := range args {
				if err := c.call(cmd.Context(), http.MethodDelete, pathOf("devices", id), nil, nil); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.AddCommand(bulkCommand(c, "import FILE", "Register the devices of an NDJSON file, one a line", "/devices/bulk"), get, rm)
	return cmd
}

func eventsCommand(c *client) *cobra.Command {
	cmd := &cobra.Command{Use: "events", Short: "Send product events, which rules make messages of"}
	cmd.AddCommand(bulkCommand(c, "push FILE", "Send the events of an NDJSON file, one a line", "/events"))
	return cmd
}
