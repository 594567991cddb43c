package main

import (
	"context"
	"os"

	"github.com/nikosgavalas/kvstore"
	"github.com/nikosgavalas/kvstore/internal/bench"
)

// seedTable runs internal/bench's seed table on the stores, in this process.
func seedTable(ctx context.Context, kinds []kind, table bench.SeedTable, s settings) (r seedResult, err error) {
	dir, err := os.MkdirTemp(table.Dir, "kvstore-peers-")
	if err != nil {
		return r, err
	}
	defer func() {
		if removeErr := os.RemoveAll(dir); err == nil {
			err = removeErr
		}
	}()
	table.Dir = dir
	table.NotFound = kvstore.ErrNotFound
	for _, k := range kinds {
		r.Stores = append(r.Stores, infoOf(k, s))
		if k.name == mapKind.name {
			continue // the table brings it as its baseline
		}
		table.Contenders = append(table.Contenders, bench.Contender{
			Name: k.name,
			Open: func(dir string) (bench.Target, error) { return k.open(dir, s) },
		})
	}
	r.SeedTableResult, err = table.Run(ctx)
	return r, err
}
