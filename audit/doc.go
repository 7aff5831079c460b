// Package audit counts runs again from Kafka's topics, without the ledger's help, and compares: the accounts with what the
// topics say, and where a simulator is the provider, both with its receipts. Know Read, which makes a Count of the topics,
// and Report, which is one run of it.
package audit
