// Package exchange is what one HTTP exchange with a provider has in common on every platform, whichever library speaks.
//
// The three types to know are [Exchange], which keeps a provider's answer as it came when a library speaks, [Pipe], which
// carries requests without one, and [History], which remembers how a
// destination has been answering, because some answers mean one thing alone and another in a row.
package exchange
