// Package priority says which processes have the cores first where they share them. It does so on Linux; elsewhere that is
// said where processes are started.
package priority
