// Package exchange is what one HTTP exchange with a provider has in common on every platform, whichever library speaks.
//
// The two types to know are [Exchange], which keeps a provider's answer as it came, and [History], which remembers how a
// destination has been answering, because some answers mean one thing alone and another in a row.
package exchange
