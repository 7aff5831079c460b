// Package ledger keeps the books: per run and platform, planned = the sum of outcomes + pending, at every moment. It adds
// up the results that lanes and expanders leave, into belfry.accounts and exactly once, shows the accounts in Redis, asks
// the launcher to settle a run whose every delivery has its outcome, and takes devices out of the registry that a
// provider no longer knows. A campaign whose outcomes show that it should not go on it asks to pause.
//
// The two things to know are [Ledger], the role, and [Read], for those who show what it has counted.
package ledger
