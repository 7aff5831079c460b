// Package exchange is what one HTTP exchange with a provider has in common on every platform, whichever library speaks.
//
// The two types to know are [Exchange], which keeps a provider's answer as it came when a library speaks, and [Pipe], which
// carries requests without one.
package exchange
