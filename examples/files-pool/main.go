// Command files-pool writes files in a pool of worker processes.
//
//	go run ./examples/files-pool -files 10 -workers 2
//
// The pool starts the workers, divides the files among them and waits for them. However many files
// there are, no more processes are in memory than the pool has workers; ../files-process, which
// does the same work, starts one for each file.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/seed84f35039/multiproc"
)

// write creates the named file, writes to it and closes it. It has no result but its error.
var write = multiproc.Register("write", func(_ context.Context, name string) (struct{}, error) {
	f, err := os.Create(name)
	if err != nil {
		return struct{}{}, err
	}
	_, err = fmt.Fprintln(f, "written by a worker")
	return struct{}{}, errors.Join(err, f.Close())
})

func main() {
	multiproc.Init()
	files := flag.Int("files", 10, "number of files to write")
	workers := flag.Int("workers", 0, "number of worker processes (0: one for each CPU)")
	flag.Parse()
	if err := run(context.Background(), *files, *workers); err != nil {
		log.Fatal(err)
	}
}

// run writes the files in a folder that it removes again, and says how long that took.
func run(ctx context.Context, files, workers int) error {
	dir, err := os.MkdirTemp("", "files-pool-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	var names []string
	for i := range files {
		names = append(names, filepath.Join(dir, fmt.Sprintf("file%d.txt", i)))
	}

	start := time.Now()
	pool := multiproc.NewPool(multiproc.PoolConfig{Workers: workers})
	defer pool.Close()
	if _, err := write.Map(ctx, pool, names); err != nil {
		return err
	}
	fmt.Printf("Time taken %.4f seconds\n", time.Since(start).Seconds())

	written, err := os.ReadDir(dir)
	fmt.Printf("%d files written\n", len(written))
	return err
}
