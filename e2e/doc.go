// Package e2e holds Belfry's end-to-end tests: the binary that ships, run as processes against simulated providers, which
// keep the receipts that the books are compared with. Every test that strikes a fault asserts that it struck.
//
// The two types to know are in its test files: world is one deployment with its providers, and process is one running
// belfry, which can be stopped and killed. Tests run on the embedded Kafka and Redis, or on real ones where
// BELFRY_TEST_KAFKA and BELFRY_TEST_REDIS name them; those that need real ones are skipped without, and say so.
package e2e
