package bench

import "sync"

// MutexMapName is the display name of the MutexMap contender.
const MutexMapName = "mutex map"

// MutexMap returns the contender that every engine has to justify itself
// against: what a programmer writes who needs a map that several goroutines
// can use, and nothing else.
func MutexMap() Contender {
	return Contender{Name: MutexMapName, Open: func(string) (Target, error) { return NewMutexMap(), nil }}
}

// NewMutexMap returns a map from strings to byte slices under a
// sync.RWMutex. It is as fast as that form allows: a lookup does not allocate,
// and a value of the same length is overwritten in place.
func NewMutexMap() Target {
	return &mutexMap{values: make(map[string][]byte)}
}

type mutexMap struct {
	mu     sync.RWMutex
	values map[string][]byte // the slices are written under mu as well
}

// Get appends the value of the key to dst, or returns dst and ErrNotFound.
func (m *mutexMap) Get(dst, key []byte) ([]byte, error) {
	m.mu.RLock()
	value, ok := m.values[string(key)]
	dst = append(dst, value...) // copied under the lock: Set writes in place
	m.mu.RUnlock()
	if !ok {
		return dst, ErrNotFound
	}
	return dst, nil
}

// Set writes a copy of the value.
func (m *mutexMap) Set(key, value []byte) error {
	m.mu.Lock()
	if old, ok := m.values[string(key)]; ok && len(old) == len(value) {
		copy(old, value)
	} else {
		m.values[string(key)] = append([]byte(nil), value...)
	}
	m.mu.Unlock()
	return nil
}

// Close lets the map go.
func (m *mutexMap) Close() error {
	m.mu.Lock()
	m.values = make(map[string][]byte)
	m.mu.Unlock()
	return nil
}
