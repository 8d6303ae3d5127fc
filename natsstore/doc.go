// Package natsstore shares access tokens between the replicas of a service.
package natsstore
