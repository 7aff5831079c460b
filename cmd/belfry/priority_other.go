//go:build !linux

package main

// yieldCores does nothing here: how much of the cores a process gets is said where it is started.
func yieldCores() error { return nil }
