// Command belfry is Belfry: `belfry serve` runs any set of its roles, and the other commands are for the people who use
// and operate it. Each command has a file of its own; app.go ties the roles together.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	_ "time/tzdata" // devices name their zones, and small images have none

	"github.com/spf13/cobra"
)

func main() {
	// The first signal asks to stop in good order. The second one finds the default handling back, and ends the process.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	if err := rootCommand().ExecuteContext(ctx); err != nil {
		// What was cancelled was cancelled by a signal: whoever sent it knows.
		if !errors.Is(err, errSaid) && !errors.Is(err, context.Canceled) {
			fmt.Fprintln(os.Stderr, "belfry:", err)
		}
		os.Exit(1)
	}
}

// errSaid fails a command that has said why already.
var errSaid = errors.New("said")

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "belfry",
		Short: "Push notifications to every phone and browser, on Kafka",
		Long: `Belfry sends push notifications to APNs, FCM and Web Push, on Kafka.

To see it work: belfry demo. For a first campaign of your own, see README.md.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	add := func(group, title string, commands ...*cobra.Command) {
		root.AddGroup(&cobra.Group{ID: group, Title: title})
		for _, c := range commands {
			c.GroupID = group
		}
		root.AddCommand(commands...)
	}
	add("use", "To send, with an API key:", clientCommands()...)
	add("steer", "To steer it, with an app's key or an operator's:", steerCommands()...)
	add("operate", "To run it:", serveCommand(), checkCommand(), topicsCommand(), rebuildCommand(), dataCommand())
	add("try", "To try it without phones:", demoCommand(), benchCommand(), simulateCommand())
	root.AddCommand(versionCommand())
	return root
}
