# The targets that .ci/run runs, in this order.
all: lint cross test race crash fuzz peers

KILLS    ?= 100
CRASH    ?= 1
FUZZTIME ?= 1000000x

.PHONY: all test race crash fuzz lint cross peers bench test-minio

test:
	go test ./...

# With SHORT=-short there are fewer random histories, and no scripts of commands.
race:
	CGO_ENABLED=1 go test -race -timeout 5m $(SHORT) ./...

# Crash images, failing calls and damaged bytes, one in CRASH of them, and kill -9.
crash:
	KVSTORE_CRASH=$(CRASH) KVSTORE_KILLS=$(KILLS) go test -count=1 -timeout 30m -run Crash ./internal/...

# FUZZTIME counts inputs: with a duration Go 1.26 fails at times, "context
# deadline exceeded", when it is over (golang/go#75804). Making inputs minimal
# would take most of so short a time.
fuzz:
	@set -e; grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u | while read -r dir; do \
		for target in $$(go test -list '^Fuzz' "$$dir" | grep '^Fuzz'); do \
			echo "go test -fuzz $$target -fuzztime $(FUZZTIME) $$dir"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x "$$dir"; \
		done; \
	done

lint:
	@unformatted=$$(gofmt -l .); test -z "$$unformatted" || { echo "not gofmt-ed:" $$unformatted; exit 1; }
	go vet ./...
	go tool staticcheck ./...
	go mod tidy -diff

# Tests run on Linux; elsewhere the code, and the tests, must compile.
PLATFORMS = linux/amd64 linux/arm64 linux/386 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64
cross:
	@set -e; for p in $(PLATFORMS); do \
		echo "go vet for $$p"; \
		GOOS=$${p%/*} GOARCH=$${p#*/} CGO_ENABLED=0 go vet ./...; \
	done

# The comparison with other stores is a module of its own.
peers:
	cd bench/peers && go vet ./... && go tool -modfile=../../go.mod staticcheck ./... && go mod tidy -diff && go test ./...

# Compare two of these with: go tool benchstat old.txt new.txt
bench:
	go test -run '^$$' -bench . -benchmem ./...

# The tests of MINIO_TESTS against a MinIO server, which is built the first time.
# With CACHED=--cached-only it is not, and nothing is tested then.
MINIO_TESTS ?= ./bucket/s3/ ./examples/wordcount/
test-minio:
	bucket/s3/minio.sh $(CACHED) $(MINIO_TESTS)
