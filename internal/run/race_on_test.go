//go:build race

package run

// stride is how many damaged bytes there are for each that is tried.
const stride = 7
