package metrics_test

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/metrics"
)

// A program that serves its metrics; Prometheus scrapes them. A store that is
// opened again gets a new collector.
func Example() {
	dir, err := os.MkdirTemp("", "kvstore-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	store, err := kvstore.Open(dir, kvstore.Options{Start: kvstore.LastSnapshot})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	registry := prometheus.NewRegistry()
	collector := metrics.NewCollector("partition-3", store)
	registry.MustRegister(collector)
	defer registry.Unregister(collector)
	server := httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	defer server.Close()

	if err := store.Set([]byte("key"), []byte("value")); err != nil {
		log.Fatal(err)
	}
	snapshot, err := store.Snapshot(context.Background(), 1000, nil)
	if err == nil {
		err = snapshot.Wait(context.Background())
	}
	if err != nil {
		log.Fatal(err)
	}

	response, err := http.Get(server.URL)
	if err != nil {
		log.Fatal(err)
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		for _, name := range []string{"kvstore_keys", "kvstore_last_snapshot_id", "kvstore_writes_total"} {
			if strings.HasPrefix(lines.Text(), name) {
				fmt.Println(lines.Text())
			}
		}
	}
	if err := lines.Err(); err != nil {
		log.Fatal(err)
	}
	// Output:
	// kvstore_keys{engine="lsmtree",store="partition-3"} 1
	// kvstore_last_snapshot_id{engine="lsmtree",store="partition-3"} 1000
	// kvstore_writes_total{engine="lsmtree",store="partition-3"} 1
}
