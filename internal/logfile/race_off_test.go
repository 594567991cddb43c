//go:build !race

package logfile

// stride is how many images of a crash there are for each that is tried.
const stride = 1
