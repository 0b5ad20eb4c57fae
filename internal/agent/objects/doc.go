// Package objects reads what pods refer to from the API: ConfigMaps, Secrets, tokens and Services.
package objects
