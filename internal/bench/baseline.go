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

// An Updater is a Target that can change a value in one step.
type Updater interface {
	Target
	// Update replaces the value of the key by what fn makes of it: fn
	// appends the new value to dst and returns the result. The slices are
	// dead when it returns.
	Update(key []byte, fn func(dst, old []byte, found bool) []byte) error
}

// A Map is what NewMutexMap returns.
type Map interface {
	Updater
	// GetAll appends the values of keys to dst, one behind the other, and to
	// ends where each of them ends, or -1 for a key without a value.
	GetAll(dst []byte, ends []int, keys [][]byte) ([]byte, []int)
	// SetAll writes copies of values, in their order.
	SetAll(keys, values [][]byte)
}

// NewMutexMap returns a map from strings to byte slices under a
// sync.RWMutex. It is as fast as that form allows: a lookup does not allocate,
// and a value of the same length is overwritten in place.
func NewMutexMap() Map {
	return &mutexMap{values: make(map[string][]byte)}
}

type mutexMap struct {
	mu      sync.RWMutex
	values  map[string][]byte // the slices are written under mu as well
	scratch []byte            // for Update, under mu
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
	old, found := m.values[string(key)]
	m.put(key, value, old, found)
	m.mu.Unlock()
	return nil
}

// Update writes what fn makes of the old value.
func (m *mutexMap) Update(key []byte, fn func(dst, old []byte, found bool) []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock() // fn may panic
	old, found := m.values[string(key)]
	m.scratch = fn(m.scratch[:0], old, found)
	m.put(key, m.scratch, old, found)
	return nil
}

// GetAll takes the lock once.
func (m *mutexMap) GetAll(dst []byte, ends []int, keys [][]byte) ([]byte, []int) {
	m.mu.RLock()
	for _, key := range keys {
		value, ok := m.values[string(key)]
		if !ok {
			ends = append(ends, -1)
			continue
		}
		dst = append(dst, value...)
		ends = append(ends, len(dst))
	}
	m.mu.RUnlock()
	return dst, ends
}

// SetAll takes the lock once, so that nobody sees a part of it.
func (m *mutexMap) SetAll(keys, values [][]byte) {
	m.mu.Lock()
	for i, key := range keys {
		old, found := m.values[string(key)]
		m.put(key, values[i], old, found)
	}
	m.mu.Unlock()
}

// put writes a copy of the value, given the old one. It needs mu.
func (m *mutexMap) put(key, value, old []byte, found bool) {
	if found && len(old) == len(value) {
		copy(old, value)
	} else {
		m.values[string(key)] = append([]byte(nil), value...)
	}
}

// Close lets the map go.
func (m *mutexMap) Close() error {
	m.mu.Lock()
	m.values = make(map[string][]byte)
	m.mu.Unlock()
	return nil
}
