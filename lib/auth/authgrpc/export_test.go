// Copyright 2026 The teleport-auditd authors. SPDX-License-Identifier: Apache-2.0

package authgrpc

import "google.golang.org/grpc"

// Methods tells tests which methods have a rule.
func Methods(s *Server) map[string]bool {
	methods := map[string]bool{}
	for name := range s.rules {
		methods[name] = true
	}
	return methods
}

// Services tells tests what is served.
func Services(s *Server) map[string]grpc.ServiceInfo { return s.grpc.GetServiceInfo() }
