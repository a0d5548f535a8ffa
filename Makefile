# make build   bin/daypass, one static binary
# make docs    docs/configuration.md, from the table of keys
# make release RELEASE="-sign KEY"   everything that is published, in dist (docs/releasing.md)
# make manifests   deploy/kubernetes and deploy/compose, from the Helm chart
# make man     a manual page for each command, in bin/man
# make check   everything that must hold before a commit lands
# make bench   the speed of issuing, logging on and relaying, against a direct connection
# make bench-peers   the same with PgBouncer and moto beside it, within ten minutes on an idle machine; writes docs/performance.md
# make soak    an hour under faults (DURATION, SEED), as docs/reliability.md reports it
# make soak-servers   the same of three servers behind a balancer, with an etcd of three members
# make fuzz    every fuzz target, FUZZTIME each (default 1m)

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
FUZZTIME ?= 1m
DURATION ?= 1h
SEED     ?= 0

.PHONY: docs man release manifests build test check format vet staticcheck vulnerabilities tidy race cross bench bench-peers soak soak-servers fuzz postgres

build:
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o bin/daypass ./cmd/daypass

# What is made of the program itself: the reference of the configuration, and the manual pages.
docs:
	go run ./cmd/daypass config reference > docs/configuration.md.new && mv docs/configuration.md.new docs/configuration.md

man:
	go run -ldflags "-X main.version=$(VERSION)" ./cmd/daypass man bin/man

release:
	cd release && GOFLAGS= go run . -out ../dist $(RELEASE)

manifests:
	cd release && GOFLAGS= go run . generate

test:
	go test ./...

check: format vet staticcheck tidy cross vulnerabilities race

format:
	@unformatted=$$(gofmt -l cmd internal release test); if [ -n "$$unformatted" ]; then echo "not gofmt'ed:"; echo "$$unformatted"; exit 1; fi

vet:
	go vet ./...
	cd release && go vet ./...

staticcheck:
	go tool staticcheck ./...

tidy:
	go mod tidy -diff

# The client commands are for the machines people sit at. Contributors sit there too, so the programs
# of test/ have to build as well.
cross:
	GOOS=darwin GOARCH=arm64 CGO_ENABLED=0 go build ./...
	GOOS=windows GOARCH=amd64 CGO_ENABLED=0 go build -o /dev/null ./cmd/daypass
	GOOS=windows GOARCH=amd64 CGO_ENABLED=0 go vet ./...

# The vulnerability database is on the network. Where it cannot be reached the
# check says so; a vulnerability that is found fails it.
vulnerabilities:
	@if output=$$(go tool govulncheck ./... 2>&1); then echo "$$output" | tail -1; \
	elif echo "$$output" | grep -qE 'vuln.go.dev|fetching vulnerabilities'; then echo "govulncheck: NOT CHECKED, the vulnerability database cannot be reached"; \
	else echo "$$output"; exit 1; fi

# Fuzz seeds, and the tests of every key of the configuration, run in one goroutine. The tests
# that run other people's programs spend their time in these; the exchanges that they have with
# the server are replayed by TestDrivers.
# A program with the race detector sleeps for a second before it exits, and the tests run hundreds.
race:
	GORACE="atexit_sleep_ms=50 $$GORACE" go test -race -timeout 30m -skip '^(Fuzz.*|TestClients|TestDocumentedCommands|TestReadmeInFrontOfPostgreSQL|TestDevPaste|TestAgainstAWS|TestNullAndEmpty|TestSchema)$$' ./...

bench:
	scripts/bench

bench-peers:
	scripts/bench-peers

soak:
	scripts/soak -duration $(DURATION) -seed $(SEED)

soak-servers:
	scripts/soak -servers 3 -duration $(DURATION) -seed $(SEED)

fuzz:
	scripts/fuzz $(FUZZTIME)

# PostgreSQL 13 to 18 for the tests, as far as they can be had (.cache/postgres).
postgres:
	scripts/fetch-postgres
