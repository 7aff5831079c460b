package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/belfry/belfry/stream/datadir"
)

func dataCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "data",
		Short: "Look after the embedded Kafka's files",
		Long: `Check, back up, restore and repair the files of the embedded Kafka, in data_dir. Stop belfry serve first: its files have
one owner at a time. A real Kafka is looked after by its own means.`,
	}
	cmd.AddCommand(dataCheck(), dataBackup(), dataRestore(), dataRepair())
	return cmd
}

// onFolder does something with the folder of the configured embedded Kafka, which nobody else has meanwhile.
func onFolder(path string, do func(dir string) error) error {
	cfg, err := loadConfig(path)
	if err != nil {
		return err
	}
	if len(cfg.Kafka.Brokers) > 0 {
		return errors.New("kafka.brokers is set: data_dir is not used, and a real Kafka is looked after by its own means")
	}
	dir := kafkaFolder(cfg)
	lock, err := datadir.Lock(dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	return do(dir)
}

// onReport does something with its report, in which what a kill in the middle of a compaction left is taken back.
func onReport(path string, do func(*datadir.Report) error) error {
	return onFolder(path, func(dir string) error {
		if _, err := datadir.Recover(dir); err != nil {
			return err
		}
		report, err := datadir.Check(dir)
		if err != nil {
			return err
		}
		return do(report)
	})
}

func dataCheck() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Look for damage, and change nothing",
		Long:  `Read all files of the embedded Kafka, and say what is damaged. The exit status is 1 when anything is.`,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return onReport(path, func(r *datadir.Report) error { return printCheck(cmd.OutOrStdout(), r) })
		},
	}
	configFlag(cmd, &path)
	return cmd
}

func printCheck(w io.Writer, r *datadir.Report) error {
	if r.Empty {
		_, err := fmt.Fprintf(w, "There is nothing in %s.\n", r.Dir)
		return err
	}
	fmt.Fprintf(w, "%s: %d topics, %d partitions, %d records in %d bytes, %d positions of groups. The last stop: %s.\n",
		r.Dir, r.Topics, r.Partitions, r.Records, r.Bytes, r.Positions, r.Stop)
	for _, t := range r.Tears {
		fmt.Fprintf(w, "unfinished, and mended at the next start without a loss: %s, byte %d: %s\n", t.File, t.At, t.What)
	}
	for _, f := range r.Faults {
		fmt.Fprintf(w, "DAMAGED: %s\n", f)
	}
	if len(r.Faults) > 0 {
		fmt.Fprintln(w, "Restore a backup (belfry data restore), or go on without what is damaged (belfry data repair).")
		return errSaid
	}
	_, err := fmt.Fprintln(w, "No damage.")
	return err
}

func dataBackup() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Write all of it to one file",
		Long: `Write the embedded Kafka's files to one tar archive, with their checksums. It refuses damaged ones, and while belfry serve
has them: a copy of files that are being written would not be one moment's. FILE must not be there yet.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return onReport(path, func(r *datadir.Report) error {
				if err := backUp(r, args[0]); err != nil {
					return err
				}
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s holds %d records of %d topics.\n", args[0], r.Records, r.Topics)
				return err
			})
		},
	}
	configFlag(cmd, &path)
	return cmd
}

// backUp leaves no file behind that is not whole.
func backUp(report *datadir.Report, path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(report.Backup(f), f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

func dataRestore() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Bring back a backup, into an empty data_dir",
		Long: `Bring back what belfry data backup wrote, into a data_dir that is empty or not there. Nothing is there before all of it was
read and found sound. What was done after the backup is done again: messages that were sent then are sent again.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return onFolder(path, func(dir string) error {
				f, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer f.Close()
				r, err := datadir.Restore(dir, f)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %d records of %d topics.\n", dir, r.Records, r.Topics)
				return err
			})
		},
	}
	configFlag(cmd, &path)
	return cmd
}

func dataRepair() *cobra.Command {
	var path, positions string
	var yes bool
	cmd := &cobra.Command{
		Use:   "repair",
		Short: "Go on without what is damaged",
		Long: `Say what is damaged and what would be lost without it; with --yes, go on without it. What is replaced is kept, in a folder
beside the files.

Where the positions of groups are lost (which records have been dealt with), --positions says where they go on:
  noted  where they were when Belfry last noted it, a minute before it ended at most: what was done since is done again
  start  at the start of what is there: all of it is done again, and messages are sent again
  end    at its end: what waits is not sent`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return onReport(path, func(r *datadir.Report) error { return repair(cmd.OutOrStdout(), r, positions, yes) })
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().BoolVar(&yes, "yes", false, "do it")
	cmd.Flags().StringVar(&positions, "positions", "", "where groups go on whose positions are lost: noted, start or end")
	return cmd
}

func repair(w io.Writer, r *datadir.Report, positions string, yes bool) error {
	if len(r.Faults) == 0 {
		_, err := fmt.Fprintln(w, "No damage.")
		return err
	}
	for _, f := range r.Faults {
		fmt.Fprintf(w, "%s\n  lost without it: %s\n", f, f.Loss)
	}
	if !yes {
		fmt.Fprintln(w, "Nothing was changed. Copy the folder first; then run this again with --yes.")
		return errSaid
	}
	switch {
	case !r.LostPositions():
	case positions == "":
		return errors.New("positions of groups are lost: say where they go on, --positions noted, start or end")
	case positions != datadir.Noted && positions != datadir.Start && positions != datadir.End:
		return fmt.Errorf("--positions %s: is none of noted, start, end", positions)
	}
	aside, err := r.Repair(positions)
	if err != nil {
		return err
	}
	if r, err = datadir.Check(r.Dir); err == nil {
		err = r.Err()
	}
	if err != nil {
		return fmt.Errorf("after the repair: %w", err)
	}
	_, err = fmt.Fprintf(w, "Repaired. What was there before is in %s.\n", filepath.Clean(aside))
	return err
}
