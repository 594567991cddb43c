//go:build !linux

package results

func kernel() string     { return "" }
func cpu() string        { return "" }
func memory() int64      { return 0 }
func disk(string) string { return "" }
